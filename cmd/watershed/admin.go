package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"watershed/serving/api"
)

// adminConfig is the config of the admin port; ok is false if none is wanted.
func (a *app) adminConfig() (cfg api.Config, ok bool, err error) {
	cfg = api.Config{Addr: a.cfg.Admin, Admin: true}
	if a.cfg.Token != "" {
		cfg.Tokens = []string{a.cfg.Token}
	}
	if a.cfg.Admin == "" {
		return cfg, false, nil
	}
	if err := cfg.Validate(); err != nil {
		return cfg, false, usageError{fmt.Errorf("--admin: %w", err)}
	}
	return cfg, true, nil
}

// withAdmin runs a role, and beside it the admin port if one is wanted: metrics, status and health, the log's level and
// profiles. It ends with the role. loops may be nil.
func (a *app) withAdmin(ctx context.Context, e *engines, loops *loops, role func(context.Context) error) error {
	cfg, ok, err := a.adminConfig()
	if err != nil {
		return err
	}
	if !ok {
		return role(ctx)
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return api.Serve(ctx, cfg, a.deps(e, loops)) })
	g.Go(func() error { defer end(); return role(ctx) })
	return g.Wait()
}

// healthTimeout is what a check of health waits for an answer. What it asks waits five seconds for its engines.
const healthTimeout = 8 * time.Second

func (a *app) healthCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Ask a running process whether it is ready",
		Long: `Ask the admin port of a process on this machine (--admin) whether all that it needs answers, or the
endpoint (--listen) if no admin port is set. It needs no token. Exit code 0: it is ready; 1: it is not.`,
		Example: `  watershed health --admin 127.0.0.1:8485`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			addr := a.cfg.Admin
			if addr == "" {
				addr = a.cfg.Listen
			}
			return a.health(cmd.Context(), addr)
		},
	}
}

func (a *app) health(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return usage("%q: want host:port, like 127.0.0.1:8485", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // one that listens everywhere listens here
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", answer)
	}
	_, err = a.stdout.Write(answer)
	return err
}
