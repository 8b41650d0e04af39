package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"watershed/internal/devserver"
)

// natsVariable makes this program a NATS server: "port directory".
const natsVariable = "WATERSHED_FAULTS_NATS"

// child does not return in a process that was started to be an engine. main and TestMain call it first.
func child() {
	devserver.Child()
	spec := os.Getenv(natsVariable)
	if spec == "" {
		return
	}
	if err := serveNATS(spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveNATS(spec string) error {
	var port int
	var dir string
	if _, err := fmt.Sscanf(spec, "%d %s", &port, &dir); err != nil {
		return fmt.Errorf("%s=%q: %w", natsVariable, spec, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n, err := devserver.StartNATS(ctx, devserver.NATSConfig{
		Dir: dir, Port: port, SyncAlways: true, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return n.Close()
}

// natsService is NATS as a process of its own.
func natsService(dir, data string, port int, t *tally) (*service, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return newService("nats", dir, self, nil, environment(fmt.Sprintf("%s=%d %s", natsVariable, port, data)), t)
}

// freePort is a port that nothing listens on at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// A clickhouse is a ClickHouse that is started again, on its ports, whenever it ends.
type clickhouse struct {
	cfg  devserver.ClickHouseConfig
	gate sync.Mutex // held while it must not be started

	mu  sync.Mutex // guards now
	now *devserver.ClickHouse
}

func startClickHouse(ctx context.Context, data, history string) (*clickhouse, error) {
	c := &clickhouse{cfg: devserver.ClickHouseConfig{
		Dir: data, UserFiles: history, ReaderDatabase: "watershed", MaxMemory: 3 << 30,
		LibPath: os.Getenv("WATERSHED_CLICKHOUSE_LIB"),
	}}
	now, err := devserver.StartClickHouse(ctx, c.cfg)
	if err != nil {
		return nil, err
	}
	c.now = now
	_, tcp, _ := net.SplitHostPort(now.Addr())
	_, http, _ := net.SplitHostPort(now.HTTPAddr())
	if c.cfg.TCPPort, err = strconv.Atoi(tcp); err != nil {
		return nil, err
	}
	c.cfg.HTTPPort, err = strconv.Atoi(http)
	return c, err
}

func (c *clickhouse) server() *devserver.ClickHouse {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// run keeps ClickHouse up until ctx ends. A start that fails is tried again: the disk may be full.
func (c *clickhouse) run(ctx context.Context) error {
	for {
		now := c.server()
		select {
		case <-ctx.Done():
			return now.Kill()
		case <-now.Done():
		}
		if pause(ctx, restartAfter) != nil {
			return nil
		}
		c.gate.Lock()
		start, cancel := context.WithTimeout(ctx, time.Minute)
		again, err := devserver.StartClickHouse(start, c.cfg)
		cancel()
		if err == nil {
			c.mu.Lock()
			c.now = again
			c.mu.Unlock()
		}
		c.gate.Unlock()
		if err != nil {
			fmt.Fprintln(os.Stderr, "ClickHouse does not start again:", firstLine(err.Error()))
		}
	}
}

// empty kills ClickHouse and takes away all that it has stored.
func (c *clickhouse) empty() error {
	c.gate.Lock()
	defer c.gate.Unlock()
	if err := c.server().Kill(); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(c.cfg.Dir, "data"))
}

func (c *clickhouse) signal(sig syscall.Signal) error { return syscall.Kill(c.server().Pid(), sig) }

// copyTree copies a directory of plain files.
func copyTree(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}
