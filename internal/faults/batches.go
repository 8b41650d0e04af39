package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// batches runs `watershed batch` again and again, as a timer would that goes off every few seconds.
type batches struct {
	bin   string
	env   []string
	log   *os.File
	r     *rand.Rand
	every time.Duration // pause between two runs at most
	tally *tally

	gate sync.Mutex                           // held during a run; guards what follows
	arm  func() string                        // the crash places of the next run; nil: none
	died func(said string, by syscall.Signal) // is told how each run ended, and what it said
	wait time.Duration                        // for archiver and speed layer to pass the cut
	push bool                                 // ClickHouse computes the slices

	now chan struct{} // holds a token when the next run shall begin at once

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd  // running; nil: none
	begun int        // runs
	done  int        // number of the last run that succeeded
	runs  []outcome
}

// patience is how long a batch waits for archiver and speed layer to pass its cut.
const patience = 5 * time.Second

// An outcome is how a run ended.
type outcome struct {
	code    int
	build   uint64
	drifted int
	said    string // on standard error
}

// report is what we read of `watershed batch --json`.
type report struct {
	Build   uint64 `json:"build"`
	Flipped bool   `json:"flipped"`
	Audit   []struct {
		View    string `json:"view"`
		Drifted int    `json:"drifted"`
	} `json:"audit"`
}

func newBatches(dir, bin string, env []string, seed uint64, every time.Duration, t *tally) (*batches, error) {
	log, err := os.OpenFile(dir+"/batch.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &batches{bin: bin, env: env, log: log, every: every, tally: t, wait: patience, r: rand.New(rand.NewPCG(seed, 11)), now: make(chan struct{}, 1)}, nil
}

// arming says at which places the next runs die, and who is told how each ended; nil: none, nobody.
func (b *batches) arming(arm func() string, died func(said string, by syscall.Signal)) {
	b.gate.Lock()
	defer b.gate.Unlock()
	b.arm, b.died = arm, died
}

// waiting says how long the next runs wait for archiver and speed layer.
func (b *batches) waiting(d time.Duration) {
	b.gate.Lock()
	defer b.gate.Unlock()
	b.wait = d
}

// pushing says whether ClickHouse computes the slices of the next runs.
func (b *batches) pushing(push bool) {
	b.gate.Lock()
	defer b.gate.Unlock()
	b.push = push
}

// run runs batches until ctx ends.
func (b *batches) run(ctx context.Context) error {
	defer b.log.Close()
	for ctx.Err() == nil {
		wait := time.NewTimer(restartAfter + time.Duration(b.r.Int64N(int64(b.every))))
		select {
		case <-wait.C:
		case <-b.now:
		case <-ctx.Done():
		}
		wait.Stop()
		b.gate.Lock()
		err := b.once(ctx, nil)
		b.gate.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// once runs one batch. With started it tells when the process runs.
func (b *batches) once(ctx context.Context, started func(*os.Process)) error {
	place := ""
	if started == nil && b.arm != nil { // the gate is held
		place = b.arm()
	}
	args := []string{"batch", "--json", "--wait", b.wait.String()}
	if b.push {
		args = append(args, "--engine", "clickhouse")
	}
	cmd := command(b.bin, args, b.env, place)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if ctx.Err() != nil {
		return nil
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start batch: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if started != nil {
		started(cmd.Process)
	}
	b.mu.Lock()
	b.begun++
	n := b.begun
	if started == nil {
		b.cmd = cmd
		select {
		case <-b.now: // whoever asked for a run meant this one
		default:
		}
	}
	b.mu.Unlock()
	_ = cmd.Wait() // how it ended is in ProcessState
	b.tally.spent("batch", cmd.ProcessState)
	o := outcome{code: cmd.ProcessState.ExitCode(), said: said.String()}
	var r report
	if json.Unmarshal(out.Bytes(), &r) == nil {
		o.build = r.Build
		for _, a := range r.Audit {
			o.drifted += a.Drifted
		}
	}
	fmt.Fprintf(b.log, "--- %s: batch %d ended: %s\n%s", time.Now().UTC().Format(time.RFC3339Nano), n, cmd.ProcessState, said.String())
	if o.drifted > 0 {
		fmt.Fprintf(b.log, "%s\n", out.Bytes())
	}
	b.mu.Lock()
	if started == nil {
		b.cmd = nil
	}
	b.runs = append(b.runs, o)
	if r.Flipped && (o.code == 0 || o.code == 3) {
		b.done = max(b.done, n)
	}
	b.mu.Unlock()
	if started == nil && b.died != nil {
		b.died(o.said, signalOf(cmd.ProcessState))
	}
	return nil
}

// complete waits until a batch has succeeded that began after the call.
func (b *batches) complete(ctx context.Context) error {
	b.mu.Lock()
	from := b.begun
	b.mu.Unlock()
	for {
		b.mu.Lock()
		done, running := b.done, b.cmd != nil
		b.mu.Unlock()
		if done > from {
			return nil
		}
		if !running {
			b.hurry()
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("no batch succeeds: %w; the last one said: %s", err, b.last().said)
		}
	}
}

// hurry makes the next run begin at once.
func (b *batches) hurry() {
	select {
	case b.now <- struct{}{}:
	default:
	}
}

func (b *batches) last() outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.runs) == 0 {
		return outcome{}
	}
	return b.runs[len(b.runs)-1]
}

// finished returns the outcomes from number n on.
func (b *batches) finished(n int) []outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.runs[min(n, len(b.runs)):]
}

// signal sends to the run that is under way; if there is none, one is begun and met in its course.
func (b *batches) signal(ctx context.Context, sig syscall.Signal) (*os.Process, error) {
	for {
		b.mu.Lock()
		cmd := b.cmd
		b.mu.Unlock()
		if cmd == nil {
			b.hurry()
		} else if pause(ctx, time.Duration(b.r.Int64N(int64(600*time.Millisecond)))) == nil {
			if err := cmd.Process.Signal(sig); err == nil {
				return cmd.Process, nil
			}
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
}
