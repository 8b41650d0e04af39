package devserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
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
	cfg  NATSConfig
	url  string
	log  *natsLogger
	lock *durable.DirLock

	end  sync.Once
	stop func()        // ends keepRunning
	done chan struct{} // closed when that has ended

	mu     sync.Mutex // guards server
	server *server.Server
}

// StartNATS starts a server on a directory and returns when it accepts connections and has recovered
// its streams. The context bounds the start alone: the server runs until Close. A directory on which
// another server runs is a *durable.LockedError.
//
// When the server cannot write, which is mostly because the disk is full, it acknowledges nothing
// more and does not get over it by itself. It is started again then, as soon as there is room; what
// it acknowledged before is there, and its clients find it again.
func StartNATS(ctx context.Context, cfg NATSConfig) (*NATS, error) {
	n, err := startNATS(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	return n, nil
}

func startNATS(ctx context.Context, cfg NATSConfig) (_ *NATS, err error) {
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(cfg.Dir); err != nil {
		return nil, err
	}
	lock, err := durable.Lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n := &NATS{cfg: cfg, lock: lock, done: make(chan struct{}),
		log: &natsLogger{logger: cfg.Logger, fatal: make(chan string, 1), broken: make(chan string, 1)}}
	if err = probe(cfg.Dir); err == nil {
		n.server, err = n.run(ctx, cfg.Port)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	n.url = n.server.ClientURL()
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	go n.keepRunning(run)
	return n, nil
}

// run starts a server on a port, 0 for a free one.
func (n *NATS) run(ctx context.Context, port int) (*server.Server, error) {
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName:             "watershed",
		Host:                   loopback,
		Port:                   port,
		JetStream:              true,
		StoreDir:               n.cfg.Dir,
		SyncAlways:             n.cfg.SyncAlways,
		DisableJetStreamBanner: true,
		NoSigs:                 true,
	})
	if err != nil {
		return nil, err
	}
	s.SetLoggerV2(n.log, false, false, false)
	end := func(err error) (*server.Server, error) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}

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
		return end(ctx.Err())
	}
	select {
	case reason := <-n.log.fatal:
		return end(errors.New(reason))
	default:
	}
	for !s.ReadyForConnections(50 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return end(err)
		}
	}
	return s, nil
}

// URL is what a client connects to, for example "nats://127.0.0.1:4222".
func (n *NATS) URL() string { return n.url }

// Close stops the server, writes what is not on disk yet, and waits until it is gone. Closing twice
// does nothing.
func (n *NATS) Close() (err error) {
	n.end.Do(func() {
		n.stop()
		<-n.done
		n.shutdown()
		err = n.lock.Close()
	})
	return err
}

func (n *NATS) shutdown() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

// natsLogger hands the server's warnings and errors on, and keeps the first fatal error and the
// last one about writing.
type natsLogger struct {
	logger *slog.Logger
	fatal  chan string // holds one
	broken chan string // holds one
}

func (l *natsLogger) Noticef(string, ...any) {}
func (l *natsLogger) Debugf(string, ...any)  {}
func (l *natsLogger) Tracef(string, ...any)  {}

func (l *natsLogger) Warnf(format string, v ...any) {
	l.logger.Warn("NATS: " + fmt.Sprintf(format, v...))
}

func (l *natsLogger) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.logger.Error("NATS: " + text)
	if endsWrites(text) {
		select {
		case l.broken <- text:
		default:
		}
	}
}

func (l *natsLogger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
