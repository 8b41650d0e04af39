package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"watershed/batch/history"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/serving/store"
)

// TestWhereaboutsOfTypesThatAreDefinedNoMore sets a type aside until no cut defines it any more. Its
// last events are in the log alone, so a log that is begun anew has to keep them; and while its table
// cannot be read, it is not known how far they reach.
func TestWhereaboutsOfTypesThatAreDefinedNoMore(t *testing.T) {
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a := &app{log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	a.cfg.History, a.cfg.Stream = t.TempDir(), "WATERSHED"
	log, err := eventlog.Open(ctx, eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 1 << 20})
	check(err)
	t.Cleanup(log.Close)
	c := devtest.SharedClickHouse(t)
	user, password := c.Admin()
	db, err := store.Open(ctx, store.Config{Addr: c.Addr(), Database: "watershed_stored", User: user, Password: password})
	check(err)
	t.Cleanup(func() { check(db.Close()) })
	e := &engines{log, db}

	parse := func(types ...string) schemas.Set {
		t.Helper()
		files := fstest.MapFS{}
		for _, name := range types {
			files[name+".yaml"] = &fstest.MapFile{Data: []byte("event: " + name + "\nid: id\ntime: time\nfields: {id: int64, time: timestamp}\n")}
		}
		set, err := schemas.Load(files)
		check(err)
		return *set
	}
	one, err := log.PublishCut(ctx, schemas.Cut{}, parse("kept", "left"), schemas.Set{})
	check(err)
	archiver, err := history.NewArchiver(history.ArchiverConfig{Root: a.cfg.History, App: a.appID(), Source: archiverSource(log), DeadLetters: log})
	check(err)
	run, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = archiver.Run(run) // it ends when it is stopped, or the test fails below
	}()
	t.Cleanup(func() { stop(); <-ended })
	until := func(name string, at schemas.Position) {
		t.Helper()
		poll := time.NewTicker(5 * time.Millisecond)
		defer poll.Stop()
		for deadline := time.After(time.Minute); archiver.Positions()[name] != at; {
			select {
			case <-poll.C:
			case <-deadline:
				t.Fatalf("%s is at %v; want %v", name, archiver.Positions()[name], at)
			}
		}
	}
	until("kept", one.Position)
	until("left", one.Position)

	logs, err := filepath.Glob(filepath.Join(a.cfg.History, "left", "_delta_log", "*.json"))
	check(err)
	next := filepath.Join(a.cfg.History, "left", "_delta_log", strings.Repeat("0", 19)+string(rune('0'+len(logs)))+".json")
	check(os.WriteFile(next, []byte("{"), 0o600))
	_, err = log.Publish(ctx, "left", []byte(`{"id":1,"time":"`+time.Now().UTC().Format(time.RFC3339)+`"}`), "")
	check(err)
	two, err := log.PublishCut(ctx, one, parse("kept", "left"), schemas.Set{})
	check(err)
	three, err := log.PublishCut(ctx, two, parse("kept"), schemas.Set{})
	check(err)
	until("kept", three.Position)
	stop()
	<-ended

	w, err := a.whereabouts(ctx, e)
	check(err)
	if err := w.known(); err == nil || !strings.Contains(err.Error(), "history of left") {
		t.Errorf("a table that cannot be read: %v; want an error that names it", err)
	}
	check(os.Remove(next))
	w, err = a.whereabouts(ctx, e)
	check(err)
	check(w.known())
	if at, ok := w.archivedHere(nil); !ok || at != one.Position || w.above < three.Position.Seq {
		t.Errorf("history has everything up to %v (%t), and the highest position is %d; want %v and %d", at, ok, w.above, one.Position, three.Position.Seq)
	}
}
