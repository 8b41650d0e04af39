package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"watershed/internal/eventlog"
)

// A scene brings about what a life does not come by of itself, while worker, batches and commands die at
// each place that is left.
type scene struct {
	name   string
	places []string // that it is there for
	do     func(w *walk, ctx context.Context) error
}

// scenes are played in this order: the last ones take from the log what the ones before need.
func scenes() []scene {
	return []scene{
		{"rollback and release", []string{"batch.rollback-published"}, (*walk).rollback},
		{"dead letters", []string{"history.rejected", "eventlog.deadletter-acknowledged"}, (*walk).deadLetters},
		{"a type is widened", []string{"history.widened"}, (*walk).widen},
		{"a type is added", []string{"history.begun"}, (*walk).add},
		{"a date has many groups", []string{"store.slice-condensed"}, (*walk).manyGroups},
		{"ClickHouse computes the slices", []string{"store.slices-pushed"}, (*walk).push},
		{"dead letters are replayed", []string{"eventlog.deadletter-replayed", "eventlog.deadletter-removed"}, (*walk).replay},
		{"import and publish", []string{"history.import-written", "eventlog.publisher-sent"}, (*walk).commands},
		{"many cuts", []string{"history.checkpoint", "durable.renamed"}, (*walk).cuts},
		{"a view's inserts are refused", []string{"speed.detached", "speed.joined"}, (*walk).refused},
		{"a write outlives its worker", []string{"store.write-killed"}, (*walk).writeKilled},
		{"a view's table is lost", []string{"store.sealed"}, (*walk).tableLost},
		{"a view is left behind", []string{"speed.rescue-begun", "speed.rescued"}, (*walk).stranded},
		{"the old definitions go", []string{"store.table-forgotten"}, (*walk).forgotten},
		{"the log is deleted", []string{"eventlog.anew-aside", "eventlog.anew-emptied", "eventlog.anew-marked", "eventlog.anew-copied",
			"eventlog.anew-cut", "eventlog.anew-open", "eventlog.anew-republished", "eventlog.anew-done"}, (*walk).logDeleted},
	}
}

// historyScenes are played in another life, beside those.
func historyScenes() []scene {
	return []scene{
		{"dates are compacted", []string{"history.compact-file", "history.compact-written", "history.compacted"}, (*walk).compact},
		{"a table cannot be reached", []string{"history.aside", "history.level"}, (*walk).aside},
		{"a file is missing", []string{"history.repair-written", "history.repair-restored", "durable.replaced"}, (*walk).fileMissing},
		{"a file of an import is damaged", []string{"history.repair-removed"}, (*walk).importDamaged},
		{"the last commit is damaged", []string{"history.repair-aside", "durable.set-aside"}, (*walk).commitDamaged},
		{"vacuum", []string{"history.vacuum-removed"}, (*walk).vacuum},
		{"ClickHouse cannot read tables", []string{"store.damaged-dropped", "store.damaged-exchanged"}, (*walk).damaged},
	}
}

// trimScenes are played where duplicates are found within a short horizon.
func trimScenes() []scene {
	return []scene{{"the log is trimmed", []string{"eventlog.trim-decided", "eventlog.trimmed"}, (*walk).trim}}
}

// unreachable are the places that no process of a Watershed comes by, with the reason.
func unreachable() map[string]string { return map[string]string{} }

// strays is the number of events that fit only when the definitions have changed.
const strays = 5

// deadLetters publishes events with a field that is not defined yet.
func (w *walk) deadLetters(ctx context.Context) error {
	log, err := w.openLog(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	var text []byte
	for range strays {
		e := w.l.importGen["sale"].draw("stray", "plain")
		w.stray = append(w.stray, e)
		text = append(text, strings.Replace(string(e.line()), "{", `{"`+note(w.notes)+`":"later",`, 1)...)
	}
	w.strays++
	if _, err := log.Publish(ctx, "sale", text, fmt.Sprintf("strays-%d", w.strays)); err != nil {
		return err
	}
	return w.met(ctx, false, "history.rejected", "eventlog.deadletter-acknowledged")
}

func (w *walk) openLog(ctx context.Context) (*eventlog.Log, error) {
	return eventlog.Open(ctx, eventlog.Config{URL: "nats://" + w.l.proxies["publisher-nats"].Addr(), MaxBytes: logBytes})
}

// note is the name of a field that a type is widened by.
func note(n int) string { return fmt.Sprintf("note%d", n) }

// define writes the definitions down: one type wider, one view said in other words, and types with a view
// each that come later than the others.
func (w *walk) define() error {
	notes := ""
	for n := range w.notes {
		notes += fmt.Sprintf(", %s: {type: string, optional: true}", note(n))
	}
	text := strings.NewReplacer("kind: string}\n---\nevent: visit", "kind: string"+notes+"}\n---\nevent: visit",
		"value > 500", "value >= 501").Replace(definitionFiles)
	for n := range w.extras {
		text += fmt.Sprintf("---\nevent: extra%d\nid: id\ntime: time\nfields: {id: string, time: timestamp}\n"+
			"---\nview: extras%d\nfrom: extra%d\ndimensions: {id: id}\nmeasures: {n: count()}\n", n, n, n)
	}
	return os.WriteFile(w.l.path("definitions", "views.yaml"), []byte(text), 0o644)
}

// widen gives a type one field more.
func (w *walk) widen(ctx context.Context) error {
	w.notes++
	if err := w.define(); err != nil {
		return err
	}
	return w.met(ctx, true, "history.widened")
}

// add defines one more type. That is a scene of its own: a worker that dies where a type begins goes on
// behind the cut, and does not widen another one there.
func (w *walk) add(ctx context.Context) error {
	w.extras++
	if err := w.define(); err != nil {
		return err
	}
	return w.met(ctx, true, "history.begun")
}

// groups are more than fit into the memory that batches have here.
const groups = 40_000

// manyGroups imports a date of which a view's states do not fit into the memory of a batch.
func (w *walk) manyGroups(ctx context.Context) error {
	w.groups++
	var text []byte
	for n := range groups {
		text = fmt.Appendf(text, "{\"id\":\"group-%d-%d\",\"time\":%q}\n", w.groups, n, time.Now().UTC().Format(time.RFC3339))
	}
	path := w.l.path(fmt.Sprintf("import-extra0-%d.ndjson", w.groups))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	if out, err := w.l.persist(ctx, "import", "extra0", path); err != nil {
		return fmt.Errorf("import %s: %w: %s", path, err, out)
	}
	if err := errors.Join(w.l.batch.complete(ctx), w.met(ctx, true, "store.slice-condensed"), w.l.batch.complete(ctx)); err != nil {
		return err
	}
	return w.l.verified(ctx, "batch")
}

// push has ClickHouse compute what is new, until a batch has died behind that.
func (w *walk) push(ctx context.Context) error {
	w.l.batch.pushing(true)
	defer w.l.batch.pushing(false)
	if err := errors.Join(w.l.batch.complete(ctx), w.met(ctx, true, "store.slices-pushed"), w.l.batch.complete(ctx)); err != nil {
		return err
	}
	return w.l.verified(ctx, "batch")
}

// trim lets the log grow older than the horizon, with cuts in it, and starts the worker again: it trims
// soon after each start.
func (w *walk) trim(ctx context.Context) error {
	if err := w.l.batch.complete(ctx); err != nil {
		return err
	}
	if err := pause(ctx, w.l.horizon+time.Second); err != nil {
		return err
	}
	for range 2 { // the second looks at what the one that has died has left
		if err := w.l.batch.complete(ctx); err != nil {
			return err
		}
		if err := w.l.speed.signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		if err := w.within(ctx, 8*time.Second, false, "eventlog.trim-decided", "eventlog.trimmed"); err != nil {
			return err
		}
	}
	return nil
}

// forgotten lets batches run until no kept build needs what the definitions were before.
func (w *walk) forgotten(ctx context.Context) error {
	return w.met(ctx, true, "store.table-forgotten")
}

// replay lets the dead letters come again.
func (w *walk) replay(ctx context.Context) error {
	if len(w.stray) == 0 { // it is played once more, and with a field more
		if err := errors.Join(w.deadLetters(ctx), w.widen(ctx), w.l.batch.complete(ctx)); err != nil {
			return err
		}
	}
	w.l.ledger.sending("sale", len(w.stray))
	out, err := w.run(ctx, "dlq", "replay", "--all")
	if err != nil {
		return fmt.Errorf("watershed dlq replay: %w: %s", err, out)
	}
	resume := w.l.quiet() // every message that comes now stands behind them
	resume()
	events := w.stray
	w.stray = nil
	return w.l.ledger.acknowledged(message{Type: "sale", Seq: ^uint64(0), Events: events})
}

// rollback shows an older build for a while.
func (w *walk) rollback(ctx context.Context) error {
	w.l.ledger.forgive(true)
	if err := w.l.reader.again(ctx); err != nil {
		return err
	}
	if err := w.backAndForth(ctx); err != nil {
		return err
	}
	if err := errors.Join(w.l.batch.complete(ctx), w.l.reader.again(ctx)); err != nil {
		return err
	}
	w.l.ledger.forgive(false)
	return nil
}

// backAndForth shows the build before the live one, and the newest again, and compares each time. The
// timer's batches wait: they would take over from the commands.
func (w *walk) backAndForth(ctx context.Context) error {
	w.l.batch.gate.Lock()
	defer w.l.batch.gate.Unlock()
	for _, args := range [][]string{{"rollback"}, {"rollback", "--release"}} {
		if out, err := w.run(ctx, args...); err != nil {
			return fmt.Errorf("watershed %s: %w: %s", strings.Join(args, " "), err, out)
		}
		if ok, err := w.l.check(ctx, false); err != nil || !ok {
			return errors.Join(errors.New("the views are not right"), err)
		}
	}
	return nil
}

// commands imports and publishes what is there already.
func (w *walk) commands(ctx context.Context) error {
	again, err := w.l.knownEvents()
	if err != nil {
		return err
	}
	imports, done, err := w.l.writeImport("sale")
	if err != nil {
		return err
	}
	defer done()
	for _, args := range [][]string{{"import", "sale", imports}, {"publish", "sale", again}} {
		if out, err := w.run(ctx, args...); err != nil {
			return fmt.Errorf("watershed %s: %w: %s", args[0], err, out)
		}
	}
	return nil
}

// cuts publishes cuts without builds, as batches do that die, until the tables have as many versions as
// there are between two checkpoints.
func (w *walk) cuts(ctx context.Context) error {
	log, err := w.openLog(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	for n := 0; n < 120 && len(w.remain("history.checkpoint", "durable.renamed")) > 0; n++ {
		last, _, err := log.LastCut(ctx)
		if err != nil {
			return err
		}
		if _, err := log.PublishCut(ctx, last, last.Definitions, last.Retiring); err != nil && !errors.Is(err, eventlog.ErrCutTaken) {
			return err
		}
		if err := pause(ctx, 30*time.Millisecond); err != nil {
			return err
		}
	}
	return w.met(ctx, true, "history.checkpoint", "durable.renamed")
}

// logDeleted deletes the stream; the command that heals dies at each step.
func (w *walk) logDeleted(ctx context.Context) error {
	w.l.healer = w.run
	defer func() { w.l.healer = w.l.once }()
	return w.l.logDeleted(ctx)
}

// still ends worker and batches, and returns what lets them go on.
func (l *life) still() (resume func(), err error) {
	l.batch.gate.Lock()
	l.speed.gate.Lock()
	l.speed.mu.Lock()
	cmd, gone := l.speed.cmd, l.speed.gone
	l.speed.mu.Unlock()
	if cmd != nil {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			l.speed.gate.Unlock()
			l.batch.gate.Unlock()
			return nil, err
		}
		<-gone
	}
	return func() {
		l.speed.gate.Unlock()
		l.batch.gate.Unlock()
	}, nil
}
