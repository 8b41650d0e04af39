package devserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	probeSize    = 4 << 20 // there is room again when a file of this size can be written
	probePause   = 500 * time.Millisecond
	restartLimit = 5 * time.Minute // for recovering large streams
)

// endsWrites reports that an error of the server's is one after which it does not write any more,
// until it is started again: NATS keeps the first failed write of a stream for good.
func endsWrites(text string) bool {
	for _, s := range []string{"ritical write error", "will be DISABLED", "disabling JetStream"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// keepRunning starts the server again whenever it cannot write any more, once there is room.
func (n *NATS) keepRunning(ctx context.Context) {
	defer close(n.done)
	for {
		select {
		case <-ctx.Done():
			return
		case reason := <-n.log.broken:
			n.cfg.Logger.Error("NATS cannot write and acknowledges nothing until it can: free space on the disk of "+n.cfg.Dir+
				"; it starts again by itself then", "reason", reason)
			if !n.restart(ctx) {
				return
			}
			n.cfg.Logger.Warn("NATS runs again", "url", n.url)
		}
	}
}

// restart waits until there is room and starts a new server in place of the one that runs. It is
// false if Close came first.
func (n *NATS) restart(ctx context.Context) bool {
	ticker := time.NewTicker(probePause)
	defer ticker.Stop()
	for stopped := false; ; {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		err := probe(n.cfg.Dir)
		if err == nil {
			if !stopped {
				n.shutdown()
				stopped = true
			}
			select {
			case <-n.log.broken: // what the old one said to the end
			default:
			}
			err = n.startAgain(ctx)
		}
		if err == nil {
			return true
		}
		n.cfg.Logger.Debug("NATS does not start again yet", "error", err)
	}
}

func (n *NATS) startAgain(ctx context.Context) error {
	u, err := url.Parse(n.url)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, restartLimit)
	defer cancel()
	s, err := n.run(ctx, port)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server = s
	return nil
}

// probe finds out whether there is room in a directory.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".room-")
	if err == nil {
		_, err = f.Write(make([]byte, probeSize))
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk of %s is full: free %d MiB or more, then start again: %w", dir, probeSize>>20, err)
	}
	return err
}
