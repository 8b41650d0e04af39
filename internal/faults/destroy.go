package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// errNotHealed ends a life: what was destroyed stays so.
var errNotHealed = errors.New("not healed")

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

// healing finds a command in a message.
var healing = regexp.MustCompile("watershed (repair[a-z -]*)")

// named waits for a message that names a command that heals.
func (l *life) named(ctx context.Context, said func() string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if m := healing.FindAllStringSubmatch(said(), -1); m != nil {
			return strings.TrimSpace(m[len(m)-1][1]), nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return "", fmt.Errorf("%w: no message names a command that heals; it said: %s", errNotHealed, lastLines(said(), 3))
		}
	}
}

// heal runs the command that a message named, once. A command that does not heal leaves the life as it is.
func (l *life) heal(ctx context.Context, command string) error {
	out, err := l.healer(ctx, strings.Fields(command)...)
	if err != nil {
		return fmt.Errorf("%w: `watershed %s`: %w: %s", errNotHealed, command, err, lastLines(out, 3))
	}
	l.tally.say("  `watershed %s`: %s", command, lastLines(out, 1))
	return nil
}

// bitFlipped changes one bit of a history file.
func (l *life) bitFlipped(ctx context.Context) error {
	return l.breakHistory(ctx, func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[l.r.IntN(len(b))] ^= 1 << l.r.IntN(8)
		return os.WriteFile(path, b, 0o644)
	})
}

func (l *life) fileMissing(ctx context.Context) error { return l.breakHistory(ctx, os.Remove) }

// breakHistory does something to a data file. `verify` must find it and name what heals, and that must
// heal; a batch in between may fail, but must not compute from what is not there.
func (l *life) breakHistory(ctx context.Context, how func(path string) error) error {
	path, err := l.dataFile()
	if err != nil {
		return err
	}
	if err := how(path); err != nil {
		return err
	}
	l.batch.hurry()
	out, verifyErr := l.command(ctx, "", "verify")
	if verifyErr == nil {
		l.tally.violate(lost, fmt.Sprintf("%s was damaged and `watershed verify` did not find it: %s", path, out))
		return errNotHealed
	}
	if !strings.Contains(out, strings.TrimSuffix(filepath.Base(path), ".parquet")) {
		return fmt.Errorf("%w: `watershed verify` does not name %s: %s", errNotHealed, path, lastLines(out, 3))
	}
	heal, err := l.named(ctx, func() string { return out })
	if err != nil {
		return err
	}
	if err := l.heal(ctx, heal); err != nil {
		return err
	}
	if out, err = l.command(ctx, "", "verify"); err != nil {
		return fmt.Errorf("%w: `watershed verify` after `watershed %s`: %w: %s", errNotHealed, heal, err, lastLines(out, 3))
	}
	return nil
}

// dataFile draws a file of history.
func (l *life) dataFile() (string, error) {
	var files []string
	err := filepath.WalkDir(l.path("history"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".parquet") && !strings.Contains(path, "_delta_log") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("no data files: %w", err)
	}
	return files[l.r.IntN(len(files))], nil
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

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
