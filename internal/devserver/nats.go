package devserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"watershed/internal/durable"
)

// NATSConfig says where and how NATS runs. Only Dir must be set.
type NATSConfig struct {
	Dir string // everything it keeps; made if it is missing

	// SyncAlways makes every acknowledgement wait for fsync, so that acknowledged messages survive a
	// power cut. Without it they survive the death of the process; the disk follows within 2 minutes.
	SyncAlways bool

	Port   int          // 0: a free one
	Logger *slog.Logger // warnings and errors of the server; nil: none
}

// NATS is a running server with JetStream.
type NATS struct {
	server *server.Server
	lock   *durable.DirLock
}

// StartNATS starts a server on a directory and returns when it accepts connections and has recovered
// its streams. The context bounds the start alone: the server runs until Close. A directory on which
// another server runs is a *durable.LockedError.
func StartNATS(ctx context.Context, cfg NATSConfig) (*NATS, error) {
	n, err := startNATS(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	return n, nil
}

func startNATS(ctx context.Context, cfg NATSConfig) (*NATS, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(dir); err != nil {
		return nil, err
	}
	lock, err := durable.Lock(dir)
	if err != nil {
		return nil, err
	}
	port := cfg.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName:             "watershed",
		Host:                   loopback,
		Port:                   port,
		JetStream:              true,
		StoreDir:               dir,
		SyncAlways:             cfg.SyncAlways,
		DisableJetStreamBanner: true,
		NoSigs:                 true,
	})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	log := &natsLogger{logger: cfg.Logger, fatal: make(chan string, 1)}
	s.SetLoggerV2(log, false, false, false)
	n := &NATS{server: s, lock: lock}

	// Start returns early after a fatal error, which the library leaves to the logger to act on; it
	// has no context, so it runs beside us and is stopped and joined if ours ends first.
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.Start()
	}()
	select {
	case <-started:
	case <-ctx.Done():
		s.Shutdown()
		<-started
		return nil, errors.Join(ctx.Err(), n.Close())
	}
	select {
	case reason := <-log.fatal:
		return nil, errors.Join(errors.New(reason), n.Close())
	default:
	}
	for !s.ReadyForConnections(50 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// URL is what a client connects to, for example "nats://127.0.0.1:4222".
func (n *NATS) URL() string { return n.server.ClientURL() }

// Close stops the server, writes what is not on disk yet, and waits until it is gone. Closing twice
// does nothing.
func (n *NATS) Close() error {
	n.server.Shutdown()
	n.server.WaitForShutdown()
	if n.lock == nil {
		return nil
	}
	lock := n.lock
	n.lock = nil
	return lock.Close()
}

// natsLogger hands the server's warnings and errors on, and keeps the first fatal error.
type natsLogger struct {
	logger *slog.Logger
	fatal  chan string // holds one
}

func (l *natsLogger) Noticef(string, ...any) {}
func (l *natsLogger) Debugf(string, ...any)  {}
func (l *natsLogger) Tracef(string, ...any)  {}

func (l *natsLogger) Warnf(format string, v ...any) {
	l.logger.Warn("NATS: " + fmt.Sprintf(format, v...))
}

func (l *natsLogger) Errorf(format string, v ...any) {
	l.logger.Error("NATS: " + fmt.Sprintf(format, v...))
}

func (l *natsLogger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
