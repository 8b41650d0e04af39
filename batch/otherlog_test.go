package batch_test

import (
	"strings"
	"testing"
	"time"

	"watershed/batch"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

// TestAnotherLogMakesNoBuild runs batches on logs that are not the one that history was archived
// from: one without a cut, and one whose first cut stands where the old log had one. History has a
// version there, which holds next to nothing, and must not go live.
func TestAnotherLogMakesNoBuild(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.fold()
	w.publish(hits(0, 100, 1, 0))
	w.batch(nil)
	w.exact()
	was, err := w.db.Live(t.Context())
	w.check(err)
	refused := func(what string, log *eventlog.Log) {
		t.Helper()
		cfg := w.config()
		cfg.Definitions, cfg.Wait = &w.defs, time.Second
		r, err := batch.Run(t.Context(), log, w.db, cfg)
		if err == nil || !strings.Contains(err.Error(), "watershed repair") {
			t.Errorf("%s: build %d, %v; want an error that says what heals", what, r.Build, err)
		}
		if now, err := w.db.Live(t.Context()); err != nil || now != was {
			t.Errorf("%s: live is %+v, %v; want still %+v", what, now, err, was)
		}
		w.exact()
	}
	lost, err := eventlog.Open(t.Context(), eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 1 << 20})
	w.check(err)
	t.Cleanup(lost.Close)
	refused("a log without a cut", lost)
	if _, ok, err := lost.LastCut(t.Context()); ok || err != nil {
		t.Errorf("the refused batch has published a cut (%v)", err)
		return
	}
	_, err = lost.PublishCut(t.Context(), schemas.Cut{}, w.defs, schemas.Set{})
	w.check(err)
	for range 3 { // the batch's cut comes to stand where the archiver has a commit of the old log
		info, err := lost.Info(t.Context())
		w.check(err)
		old, ok, err := w.log.LastCut(t.Context())
		w.check(err)
		if !ok || info.Last+1 >= old.Position.Seq {
			break
		}
		_, err = lost.Publish(t.Context(), "hit", []byte(hits(0, 1, 1, 0)), "")
		w.check(err)
	}
	refused("a log whose cut stands at an old one's position", lost)
}
