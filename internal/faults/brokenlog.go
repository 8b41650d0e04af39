package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// archived stops the publishers and waits until history has everything, so that what is destroyed
// next is not the only copy. It returns what lets the publishers go on.
func (l *life) archived(ctx context.Context) (resume func(), err error) {
	resume = l.quiet()
	if err := l.batch.complete(ctx); err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}

// logDeleted deletes the stream under everybody's feet.
func (l *life) logDeleted(ctx context.Context) error {
	return l.breakLog(ctx, l.deleteStream)
}

// logRecreated deletes the stream, and the worker's next start makes an empty one.
func (l *life) logRecreated(ctx context.Context) error {
	return l.breakLog(ctx, func() error {
		return errors.Join(l.deleteStream(), l.speed.signal(syscall.SIGKILL))
	})
}

// logRestored puts an older copy of NATS's directory in the place of the present one.
func (l *life) logRestored(ctx context.Context) error {
	data, old := l.path("nats"), l.path("nats.copy")
	if err := l.nats.stop(syscall.SIGKILL, func() error { return copyTree(data, old) }); err != nil {
		return err
	}
	if _, err := l.level(ctx); err != nil {
		return err
	}
	if err := pause(ctx, l.pace.pauseMin); err != nil {
		return err
	}
	return l.breakLog(ctx, func() error {
		return l.nats.stop(syscall.SIGKILL, func() error { return replaceTree(old, data) })
	})
}

// replaceTree makes a directory hold what another holds.
func replaceTree(from, to string) error {
	entries, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return os.CopyFS(to, os.DirFS(from))
}

// breakLog does something to the log of which everything is archived. Then the worker must stop with
// a message that names what heals, and that must heal.
func (l *life) breakLog(ctx context.Context, how func() error) error {
	resume, err := l.archived(ctx)
	if err != nil {
		return err
	}
	l.reader.rest(true)
	l.ledger.waive()
	said := l.speed.said()
	err = how()
	resume()
	if err != nil {
		return err
	}
	l.whole = false
	heal, err := l.named(ctx, func() string { return l.speed.since(said) })
	if err != nil {
		return err
	}
	if err := l.heal(ctx, heal); err != nil {
		return err
	}
	l.ledger.waive()
	// What stopped is started again by whoever has healed.
	if err := l.speed.stop(syscall.SIGTERM, func() error { return nil }); err != nil {
		return err
	}
	if _, err := l.level(ctx); err != nil {
		return err
	}
	l.reader.rest(false)
	return nil
}

// deleteStream asks NATS by its own words: no client of ours would do it.
func (l *life) deleteStream() error {
	u, err := url.Parse("nats://" + l.proxies["publisher-nats"].Addr())
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", u.Host, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.DELETE.WATERSHED answer 0\r\n\r\n"); err != nil {
		return err
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.Contains(line, `"success":true`):
			return nil
		case strings.Contains(line, `"error"`), strings.HasPrefix(line, "-ERR"):
			return fmt.Errorf("delete the stream: %s", line)
		}
	}
	return errors.New("delete the stream: no answer")
}
