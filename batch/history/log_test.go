package history_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"watershed/batch/history"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

const realApp = "watershed/WATERSHED/0"

func opener(log *eventlog.Log) history.OpenSource {
	return func(ctx context.Context, after schemas.Position, types ...string) (history.Source, schemas.Cut, error) {
		cut, _, err := log.CutFor(ctx, after.Seq)
		if err != nil {
			return nil, cut, err
		}
		chunks, err := log.Chunks(ctx, after, eventlog.ChunkOptions{Types: types})
		return chunks, cut, err
	}
}

// archiveUntil runs an archiver on a real log until it stands at a position for all types given.
func archiveUntil(t *testing.T, log *eventlog.Log, root string, at schemas.Position, types ...string) {
	t.Helper()
	a, err := history.NewArchiver(history.ArchiverConfig{Root: root, App: realApp, Source: opener(log), DeadLetters: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	deadline, poll := time.After(time.Minute), time.NewTicker(5*time.Millisecond)
	defer poll.Stop()
	for level := false; !level; {
		level = true
		for _, name := range types {
			level = level && a.Positions()[name] == at
		}
		select {
		case <-poll.C:
		case err := <-done:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("not at %d within a minute: %v, failing: %v", at.Seq, a.Positions(), a.Failing())
		}
	}
	cancel()
	<-done
}

// The archiver on a real log that is trimmed, whose files are damaged and restored, and that is begun
// anew after it was lost: what was archived is compared with the log each time.
func TestRealLogTrimmedRepairedAndBegunAnew(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	log, err := eventlog.Open(ctx, eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	fields := func() []schemas.Field {
		return []schemas.Field{{Name: "id", Type: schemas.Type{Kind: schemas.String}}, {Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
			{Name: "n", Type: schemas.Type{Kind: schemas.Int64}, Optional: true}}
	}
	defs := schemas.Set{Events: []*schemas.Event{{Name: "a", ID: "id", Time: "time", Fields: fields()}, {Name: "b", ID: "id", Time: "time", Fields: fields()}}}
	published := 0
	publish := func(n int) {
		t.Helper()
		for range n {
			published++
			day := time.Now().AddDate(0, 0, -published%3).UTC().Format(time.RFC3339)
			payload := fmt.Sprintf("{\"id\":\"e%d\",\"time\":%q,\"n\":%d}\n", published, day, published)
			if _, err := log.Publish(ctx, []string{"a", "b"}[published%2], []byte(payload), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	var cut schemas.Cut
	next := func() {
		t.Helper()
		if cut, err = log.PublishCut(ctx, cut, defs, schemas.Set{}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, files int64) {
		t.Helper()
		r, err := history.VerifyLog(ctx, root, realApp, opener(log))
		if err != nil || len(r.Problems) != 0 {
			t.Errorf("%s: against the log: %v, %v", what, r.Problems, err)
		}
		v, err := history.Verify(ctx, root)
		if err != nil || len(v.Problems) != 0 || v.Rows != files {
			t.Errorf("%s: %d events and %v, %v; want %d events", what, v.Rows, v.Problems, err, files)
		}
	}
	next()
	publish(40)
	next()
	publish(40)
	next()
	archiveUntil(t, log, root, cut.Position, "a", "b")
	check("archived", 80)

	names, err := filepath.Glob(filepath.Join(root, "*", "_date=*", "*.parquet"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range names {
		if err := os.Truncate(name, 100); err != nil {
			t.Fatal(err)
		}
	}
	v, err := history.Verify(ctx, root)
	if err != nil || len(v.Problems) != len(names) {
		t.Fatalf("damaged: %v, %v; want %d problems", v.Problems, err, len(names))
	}
	r, err := history.Repair(ctx, root, realApp, v.Problems, opener(log), history.RepairOptions{})
	if err != nil || len(r.Left()) != 0 {
		t.Fatalf("left: %v, %v", r.Left(), err)
	}
	check("repaired", 80)

	if _, err := log.Trim(ctx, cut.Position); err != nil {
		t.Fatal(err)
	}
	check("trimmed", 80)
	publish(10)
	next()
	archiveUntil(t, log, root, cut.Position, "a", "b")
	check("archived behind the trim", 90)

	// An empty directory beside a trimmed log has lost events, and says so.
	empty, err := history.NewArchiver(history.ArchiverConfig{Root: t.TempDir(), App: realApp, Source: opener(log), DeadLetters: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Run(ctx); err == nil || !strings.Contains(err.Error(), "watershed repair") {
		t.Errorf("an empty directory: got %v; want an error that names watershed repair", err)
	}

	publish(10) // that the archiver has not seen: they come again behind the cut
	anew, err := log.Anew(ctx, eventlog.AnewRequest{Above: cut.Position.Seq + 100, CutAbove: cut.Number, Kept: cut.Position, Definitions: defs})
	if err != nil {
		t.Fatal(err)
	}
	if anew.Republished != 10 {
		t.Errorf("%d messages were published again; want 10", anew.Republished)
	}
	cut = anew.Cut
	publish(10)
	next()
	archiveUntil(t, log, root, cut.Position, "a", "b")
	check("begun anew", 110)
}
