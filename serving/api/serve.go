package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
)

// Serve listens and serves until the context ends. Then no new request is taken, running answers have three
// seconds to end, and what still runs is broken off and its queries killed. It returns nil after an
// orderly end; every goroutine of its own has ended by then.
func Serve(ctx context.Context, cfg Config, deps Deps) error {
	a, err := newAPI(cfg, deps)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.config.Addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return a.serve(ctx, listener)
}

// serve serves what comes to a listener, which it closes.
func (a *api) serve(ctx context.Context, listener net.Listener) error {
	deps := &a.deps
	// Requests outlive ctx by the grace time, then they end with this.
	requests, breakOff := context.WithCancel(context.WithoutCancel(ctx))
	defer breakOff()
	if deps.Stored != nil {
		stop, err := deps.Stored(func() { a.watch.stored(); a.tails.pulse.beat() })
		if err != nil {
			return errors.Join(fmt.Errorf("listen for what is stored: %w", err), listener.Close())
		}
		defer stop()
		a.watch.until, a.tails.fallback = lookAgain, tailFallback
	}
	server := &http.Server{
		Handler:           a.handler(deps.Version),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       2 * headerTimeout,
		WriteTimeout:      a.config.MaxTimeout + 2*headerTimeout, // a query's own limit comes first
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if deps.Listening != nil {
		deps.Listening(listener.Addr().String())
	}
	name := "endpoint"
	if a.config.Admin {
		name = "admin port"
	}
	a.logger.Info(name+" is up", "addr", listener.Addr().String(), "tokens", len(a.tokens))
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	a.stopping.Store(true)
	close(a.stopped)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := server.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		breakOff()
		err = server.Close()
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	a.logger.Info(name + " is down")
	return nil
}
