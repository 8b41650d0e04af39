package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"golang.org/x/sync/errgroup"

	"watershed/batch"
	"watershed/internal/eventlog"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// childCommand is the hidden first argument of the processes whose memory and time are measured.
const childCommand = "measured"

// A task is what a measured process does. It comes as JSON on its standard input.
type task struct {
	Floor   bool   // read the columns that the views need, and do nothing with them; else: a batch
	Data    string // name of the dataset
	Views   []string
	History string
	Profile string // file for a CPU profile; empty: none

	NATS, ClickHouse, User, Password string
	Rebuild                          bool

	Stay     string // what a process of the speed benchmark does until its input ends; empty: none of these
	Dir      string // NATS's
	Database string
	Fsync    bool   // of log and states
	Until    uint64 // the log's message that the bare consumer reads up to
}

// An outcome is what a measured process has to tell. It goes as JSON to its standard output.
type outcome struct {
	cost
	Seconds float64 `json:"seconds"`
	Rows    int64   `json:"rows"`
	Report  *report `json:"report,omitempty"`
}

// A report is what is told here of a batch.Report.
type report struct {
	Groups uint64 `json:"groups"`
	Slices struct {
		Computed int `json:"computed"`
		Reused   int `json:"reused"`
	} `json:"slices"`
	Seconds map[string]float64 `json:"seconds"`          // by step
	Phases  map[string]float64 `json:"phases,omitempty"` // of the slices step, summed over goroutines
}

func reportOf(r *batch.Report) (out *report, err error) {
	text, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	return out, err
}

// measure does a task in a process of its own.
func measure(ctx context.Context, t task) (out outcome, err error) {
	self, err := os.Executable()
	if err != nil {
		return out, err
	}
	input, output, err := os.Pipe()
	if err != nil {
		return out, err
	}
	cmd := exec.CommandContext(ctx, self, childCommand)
	cmd.Stdin, cmd.Stderr = input, os.Stderr
	result, err := cmd.StdoutPipe()
	if err != nil {
		return out, err
	}
	if err := cmd.Start(); err != nil {
		return out, err
	}
	err = errors.Join(json.NewEncoder(output).Encode(t), output.Close(), input.Close())
	text, readErr := io.ReadAll(result)
	if err := errors.Join(err, readErr, cmd.Wait()); err != nil {
		return out, fmt.Errorf("measured process: %w", err)
	}
	return out, json.Unmarshal(text, &out)
}

// child is a measured process.
func child(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var t task
	if err := json.Unmarshal(line, &t); err != nil {
		return err
	}
	if t.Profile != "" {
		f, err := os.Create(t.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	if t.Stay != "" {
		defer pprof.StopCPUProfile()
		return stay(ctx, t, in, stdout)
	}
	d, err := definitionsOf(t.Data)
	if err != nil {
		return err
	}
	var out outcome
	if t.Floor {
		out, err = floor(ctx, d, t)
	} else {
		out, err = compute(ctx, t)
	}
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	if out.cost, err = costOf(os.Getpid()); err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(out)
}

// compute runs a batch.
func compute(ctx context.Context, t task) (out outcome, err error) {
	log, err := eventlog.Open(ctx, eventlog.Config{URL: t.NATS, MaxBytes: logBytes})
	if err != nil {
		return out, err
	}
	defer log.Close()
	db, err := store.Open(ctx, store.Config{Addr: t.ClickHouse, Database: database, User: t.User, Password: t.Password})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	debug.SetMemoryLimit(640 << 20) // as `watershed batch` does
	began := time.Now()
	done, err := batch.Run(ctx, log, db, batch.Config{
		History: t.History, App: app, Rebuild: t.Rebuild, Wait: patience, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	out.Seconds, out.Rows = time.Since(began).Seconds(), int64(done.Events)
	if err == nil && !done.Flipped {
		err = errors.New("the build is not live")
	}
	if err != nil {
		return out, err
	}
	out.Report, err = reportOf(done)
	return out, err
}

// floor reads the columns that views need, on all cores, and nothing else.
func floor(ctx context.Context, d *dataset, t task) (out outcome, err error) {
	plans, err := d.plans(t.Views)
	if err != nil {
		return out, err
	}
	began := time.Now()
	table, snap, err := d.open(ctx, t.History)
	if err != nil {
		return out, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	columns := inputs(plans)
	for _, f := range snap.Files {
		group.Go(func() error {
			return table.Scan(ctx, f, columns, func(rec arrow.Record) error { rec.Release(); return nil })
		})
	}
	err = group.Wait()
	out.Seconds, out.Rows = time.Since(began).Seconds(), snap.Rows()
	return out, err
}

// inputs are the fields that views read.
func inputs(plans []*view.Plan) []string {
	var out []string
	for _, p := range plans {
		for _, in := range p.Inputs() {
			if !slices.Contains(out, in) {
				out = append(out, in)
			}
		}
	}
	return out
}
