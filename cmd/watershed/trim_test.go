package main

import (
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// TestTrimForgetsWhatNobodyNeeds holds the limit against each of what may hold it, one after the
// other: the archive, the duplicate horizon, the views, and a log that fills up.
func TestTrimForgetsWhatNobodyNeeds(t *testing.T) {
	ctx := t.Context()
	n := devtest.NATS(t)
	log, err := eventlog.Open(ctx, eventlog.Config{URL: n.URL(), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	c := devtest.SharedClickHouse(t)
	user, password := c.Admin()
	db, err := store.Open(ctx, store.Config{Addr: c.Addr(), Database: "watershed_trim", User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	set, err := schemas.Load(schemas.Examples())
	if err != nil {
		t.Fatal(err)
	}
	plans, err := view.CompileSet(set)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.EnsurePlans(ctx, plans, true); err != nil {
		t.Fatal(err)
	}
	if err := db.TakeOver(ctx, store.RoleSpeed, 1); err != nil {
		t.Fatal(err)
	}
	archived := make(map[string]schemas.Position)
	trim := &trimmer{a: &app{log: slog.New(slog.NewTextHandler(t.Output(), nil))}, e: &engines{log, db}, horizon: 0,
		archived: func() map[string]schemas.Position { return maps.Clone(archived) }}
	cut := func() schemas.Cut {
		t.Helper()
		last, _, err := log.LastCut(ctx)
		if err == nil {
			last, err = log.PublishCut(ctx, last, *set, schemas.Set{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return last
	}
	publish := func() schemas.Position {
		t.Helper()
		seq, err := log.Publish(ctx, "departure", []byte(strings.Repeat(" ", 100<<10)+"{}"), "")
		if err != nil {
			t.Fatal(err)
		}
		at, _, err := log.At(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	reach := func(at schemas.Position, epoch uint64) {
		t.Helper()
		marks := make(map[string]schemas.Mark)
		for _, p := range plans {
			marks[p.Hash] = schemas.Mark{Epoch: epoch, Position: at}
		}
		if err := db.SavePositions(ctx, 1, marks); err != nil {
			t.Fatal(err)
		}
	}
	f := func(what string, first uint64) {
		t.Helper()
		if err := trim.trim(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if info, err := log.Info(ctx); err != nil || info.First != first {
			t.Errorf("%s: the log begins at %d, %v; want %d", what, info.First, err, first)
		}
	}
	one := cut()
	publish()
	two := cut()
	end := publish()

	f("nothing is archived", 1)
	archived["departure"] = end
	f("no view has anything", 1)
	reach(one.Position, 1)
	f("views stand at cut 1", 1)
	reach(end, 2)
	trim.horizon = time.Hour
	f("duplicates of an hour are remembered", 1)
	trim.horizon = 0
	archived["departure"] = one.Position
	f("history stands at cut 1", 1)
	archived["departure"] = two.Position
	f("all have cut 2", two.Position.Seq)

	// The log fills up behind views that stand still, and no batch cuts it: it is cut, and they are
	// left behind as soon as history has what they lack.
	for full := false; !full; {
		end = publish()
		info, err := log.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		full = underPressure(info)
	}
	f("history lags behind a log that fills up", two.Position.Seq)
	archived["departure"] = end
	f("history has all", two.Position.Seq)
	last, _, err := log.LastCut(ctx)
	if err != nil || last.Number != two.Number+1 || last.Definitions.Hash() != set.Hash() {
		t.Fatalf("the last cut is %d, %v; want the one after %d, with the same definitions", last.Number, err, two.Number)
	}
	archived["departure"] = last.Position
	publish()
	f("history has the new cut", last.Position.Seq)

	// Full to the brim, the log has no room for a cut; it is trimmed to the last one all the same.
	end = publish()
	four := cut()
	for size := 100 << 10; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = log.Publish(ctx, "departure", []byte(strings.Repeat(" ", size)+"{}"), "")
		}
		if !errors.Is(err, eventlog.ErrLogFull) {
			t.Fatal(err)
		}
	}
	info, err := log.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if archived["departure"], _, err = log.At(ctx, info.Last); err != nil {
		t.Fatal(err)
	}
	archived["arrival"] = end
	f("a type that is defined no more is set aside", last.Position.Seq)
	delete(archived, "arrival")
	if err := trim.trim(ctx); !errors.Is(err, eventlog.ErrLogFull) {
		t.Errorf("the cut of a full log: %v; want %v", err, eventlog.ErrLogFull)
	}
	f("it was trimmed to the last cut", four.Position.Seq)
}
