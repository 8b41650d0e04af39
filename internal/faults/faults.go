package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"watershed/internal/faultproxy"
)

// What is promised: to be level again so long after the end of a fault.
const (
	soon  = 10 * time.Second // NATS, the roles
	later = 30 * time.Second // ClickHouse
)

// A pace is how long things take.
type pace struct {
	batchEvery         time.Duration // pause between two batches at most
	pauseMin, pauseMax time.Duration // of a process, a network, a disk
	exactEvery         int           // faults between two comparisons behind a batch
	perLife            int           // faults of a life at most
}

func shortPace() pace { return pace{4 * time.Second, 500 * time.Millisecond, 2 * time.Second, 4, 10} }
func longPace() pace  { return pace{4 * time.Second, 5 * time.Second, 60 * time.Second, 1, 40} }

// length draws how long a fault lasts.
func (p pace) length(r *rand.Rand) time.Duration {
	return p.pauseMin + time.Duration(r.Int64N(int64(p.pauseMax-p.pauseMin)))
}

// A fault is one thing that goes wrong. do returns when it is over; recovery is measured from then.
type fault struct {
	name     string
	promised time.Duration
	disk     bool // needs disks of its own
	measured bool // do waits for the recovery, and notes it
	heavy    bool // destroys data: compared behind a batch in any case
	do       func(ctx context.Context, l *life) error
}

// allFaults is every kind of fault but the crash places.
func allFaults() []fault {
	var all []fault
	for _, name := range []string{"nats", "clickhouse", "speed", "batch", "serve"} {
		promised := soon
		if name == "clickhouse" {
			promised = later
		}
		all = append(all,
			fault{name: "kill " + name, promised: promised, do: func(ctx context.Context, l *life) error { return l.kill(ctx, name) }},
			fault{name: "pause " + name, promised: promised, do: func(ctx context.Context, l *life) error { return l.freeze(ctx, name) }})
	}
	for _, way := range []string{"publisher-nats", "speed-nats", "speed-clickhouse", "batch-nats", "batch-clickhouse", "serve-nats", "serve-clickhouse"} {
		all = append(all,
			fault{name: "reset " + way, promised: soon, do: func(ctx context.Context, l *life) error { return l.reset(ctx, way) }},
			fault{name: "delay " + way, promised: soon, do: func(ctx context.Context, l *life) error { return l.delay(ctx, way) }})
	}
	for _, name := range []string{"nats", "history", "clickhouse"} {
		promised := soon
		if name == "clickhouse" {
			promised = later
		}
		all = append(all, fault{name: "full disk " + name, promised: promised, disk: true, do: func(ctx context.Context, l *life) error { return l.fillDisk(ctx, name) }})
	}
	return append(all,
		fault{name: "two workers", promised: soon, do: func(ctx context.Context, l *life) error { return l.twoWorkers(ctx) }},
		fault{name: "two batches", promised: soon, do: func(ctx context.Context, l *life) error { return l.twoBatches(ctx) }},
		fault{name: "clickhouse emptied", measured: true, do: func(ctx context.Context, l *life) error { return l.emptyClickHouse(ctx) }},
		fault{name: "clickhouse part damaged", promised: later, heavy: true, do: func(ctx context.Context, l *life) error { return l.partDamaged(ctx) }},
		fault{name: "log deleted", heavy: true, do: func(ctx context.Context, l *life) error { return l.logDeleted(ctx) }},
		fault{name: "log recreated", heavy: true, do: func(ctx context.Context, l *life) error { return l.logRecreated(ctx) }},
		fault{name: "log restored from a copy", heavy: true, do: func(ctx context.Context, l *life) error { return l.logRestored(ctx) }},
		fault{name: "history bit flipped", heavy: true, do: func(ctx context.Context, l *life) error { return l.bitFlipped(ctx) }},
		fault{name: "history file missing", heavy: true, do: func(ctx context.Context, l *life) error { return l.fileMissing(ctx) }},
	)
}

// signal sends to one of the five processes.
func (l *life) signal(ctx context.Context, name string, sig syscall.Signal) (again func(syscall.Signal) error, err error) {
	switch name {
	case "nats":
		return l.nats.signal, l.nats.signal(sig)
	case "speed":
		return l.speed.signal, l.speed.signal(sig)
	case "serve":
		return l.serve.signal, l.serve.signal(sig)
	case "clickhouse":
		return l.clickhouse.signal, l.clickhouse.signal(sig)
	}
	process, err := l.batch.signal(ctx, sig)
	return func(s syscall.Signal) error { return process.Signal(s) }, err
}

func (l *life) kill(ctx context.Context, name string) error {
	_, err := l.reached(ctx, name, syscall.SIGKILL)
	return err
}

// reached sends to a process until it has come: it may have just died.
func (l *life) reached(ctx context.Context, name string, sig syscall.Signal) (again func(syscall.Signal) error, err error) {
	for {
		again, err = l.signal(ctx, name, sig)
		if !errors.Is(err, os.ErrProcessDone) || pause(ctx, restartAfter) != nil {
			return again, err
		}
	}
}

// freeze stops a process for a while and lets it go on as if nothing had been.
func (l *life) freeze(ctx context.Context, name string) error {
	again, err := l.reached(ctx, name, syscall.SIGSTOP)
	if err != nil {
		return err
	}
	if err := pause(ctx, l.pace.length(l.r)); err != nil {
		return err
	}
	if err := again(syscall.SIGCONT); !errors.Is(err, os.ErrProcessDone) { // else it was started anew
		return err
	}
	return nil
}

// reset throws a server's answers away and then breaks the connections: what the server did in
// between is unknown to its client.
func (l *life) reset(ctx context.Context, way string) error {
	p := l.proxies[way]
	p.Set(faultproxy.DropAnswers)
	err := pause(ctx, time.Duration(l.r.Int64N(int64(500*time.Millisecond))))
	p.Reset()
	p.Set(faultproxy.Pass)
	return err
}

// delay holds a client's requests, breaks with it, and delivers them when it has begun anew.
func (l *life) delay(ctx context.Context, way string) error {
	p := l.proxies[way]
	held := faultproxy.HoldRequests
	if l.r.IntN(2) == 0 {
		held = faultproxy.HoldAnswers
	}
	p.Set(held)
	err := pause(ctx, l.pace.length(l.r))
	p.Set(faultproxy.Pass)
	return err
}

// fillDisk takes all space for a while.
func (l *life) fillDisk(ctx context.Context, name string) error {
	free, err := l.disks.fill(name)
	if err != nil {
		return err
	}
	err = pause(ctx, l.pace.length(l.r))
	return errors.Join(err, free())
}

// twoWorkers starts a second worker, which takes over; then the first is started anew and takes over
// from it.
func (l *life) twoWorkers(ctx context.Context) error {
	second := command(l.bin, []string{"speed"}, l.env["speed"], "")
	log, err := os.OpenFile(l.path("second.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	second.Stdout, second.Stderr = log, log
	if err := second.Start(); err != nil {
		return err
	}
	err = pause(ctx, l.pace.length(l.r))
	if stopErr := l.speed.stop(syscall.SIGTERM, func() error { return nil }); err == nil {
		err = stopErr
	}
	if err == nil {
		err = pause(ctx, time.Duration(l.r.Int64N(int64(time.Second))))
	}
	_ = second.Process.Kill()
	_ = second.Wait() // it was killed
	return err
}

// twoBatches runs a batch beside the one that comes next.
func (l *life) twoBatches(ctx context.Context) error {
	l.batch.hurry()
	if err := pause(ctx, time.Duration(l.r.Int64N(int64(500*time.Millisecond)))); err != nil {
		return err
	}
	if err := l.batch.once(ctx, func(*os.Process) {}); err != nil {
		return fmt.Errorf("second batch: %w", err)
	}
	return nil
}

// emptyClickHouse takes away all that ClickHouse has. It must be computed again without an operator,
// and before the next night: the timer's batches wait.
func (l *life) emptyClickHouse(ctx context.Context) error {
	l.batch.gate.Lock()
	defer l.batch.gate.Unlock()
	if err := l.clickhouse.empty(); err != nil {
		return err
	}
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	if _, err := l.level(wait); err != nil {
		if ctx.Err() == nil {
			l.tally.failed("by itself: %v; the worker said: %s", err, lastLines(l.speed.since(0), 1))
		}
		return nil
	}
	l.recovered(time.Since(began), later)
	return nil
}
