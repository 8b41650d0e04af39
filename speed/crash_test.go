package speed_test

import (
	"fmt"
	"testing"

	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/speed"
)

// A worker that dies at any of its writes, before or after the write was done, leaves nothing
// lost and nothing doubled: not at the beginning, at a cut, or at a cut that changes plans.
func TestCrashAtEveryStep(t *testing.T) {
	w := newWorld(t)
	w.publish(0, 50)
	w.cut(parse(t, hitEvent+sitesView), schemas.Set{})
	w.publish(25, 75)
	more := parse(t, hitEvent+sitesView+"---\nview: wide\nfrom: hit\nmeasures: {hits: count()}\n")
	w.cut(more, schemas.Set{})
	w.publish(0, 100)
	plans := compile(t, more)
	sites := plans[0]
	for _, done := range []bool{false, true} {
		steps := 0
		for crash := 1; steps == 0; crash++ {
			db := w.database(fmt.Sprintf("_%t_%d", done, crash))
			died, at := make(chan struct{}), ""
			n := 0
			db.on(func(op string, _ *view.Plan) (error, error) {
				if done && (op == "Term" || op == "Positions") {
					return nil, nil // a read that is done is a read that was not
				}
				switch n++; {
				case n == crash:
					at = op
					close(died)
					if done {
						return nil, errLost
					}
					return errLost, nil
				case n > crash: // it is dead
					return errLost, nil
				}
				return nil, nil
			})
			r := w.start(db, speed.Config{FlushEvery: quick().FlushEvery})
			survived := false
			w.until("a crash, or the end of the log", func() bool {
				select {
				case <-died:
					return true
				default:
				}
				info, err := w.log.Info(t.Context())
				w.check(err)
				survived = w.behind(db, info.Last, plans...) == ""
				return survived
			})
			r.cancel()
			<-r.done // what a dead worker says does not matter
			if survived {
				steps = crash
			}
			db.on(nil)
			again := w.start(db, quick())
			w.caughtUp(db, plans...)
			again.stop()
			t.Logf("crash at write %d, %s; done: %t", crash, at, done)
			w.epochs(db, sites)
		}
		if steps < 10 {
			t.Errorf("only %d steps", steps)
		}
	}
}
