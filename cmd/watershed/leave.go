package main

import (
	"context"
	"fmt"
	"time"
)

// leaveWithin bounds what a role that is told to stop may take: to flush, to end what it answers, and to close its
// engines. Kubernetes and docker compose wait longer before they kill.
const leaveWithin = 5 * time.Second

// leave runs a role, and once ctx has ended, waits leaveWithin for it to end in order: the worker flushes what it has
// folded, the endpoint ends its answers, embedded engines close.
//
// What has not ended by then is abandoned, as if the process had been killed: each step of a protocol may be the last,
// so the next start goes on from what is stored. Embedded engines end by themselves when the process has.
func (a *app) leave(ctx context.Context, name string, role func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() { ended <- role(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	began := time.Now()
	a.leaveBy = began.Add(leaveWithin)
	a.log.Info("stopping", "role", name, "within", leaveWithin)
	late := time.NewTimer(leaveWithin)
	defer late.Stop()
	select {
	case err := <-ended:
		a.log.Info("stopped", "role", name, "seconds", time.Since(began).Seconds())
		return err
	case <-late.C:
		return fmt.Errorf("%s had not stopped after %s: what was under way is abandoned, and the next start goes on from what is stored", name, leaveWithin)
	}
}
