package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing/fstest"
	"time"

	"watershed/batch/history"
	"watershed/internal/devserver"
	"watershed/schemas"
	"watershed/schemas/view"
)

//go:embed views/*.yaml
var definitions embed.FS

// headline is the number of views that the table speaks of; more are there for the time by number of views.
const headline = 6

// A dataset is events of one type in one or two histories, and views of them.
type dataset struct {
	name    string
	event   *schemas.Event
	views   []*schemas.View
	traffic Traffic // of generated events
	dir     string  // has a directory for each history
	kinds   []string
}

// definitionsOf reads a dataset's event and views.
func definitionsOf(name string) (*dataset, error) {
	text, err := definitions.ReadFile("views/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no dataset %s: use pageview or flights", name)
	}
	set, err := schemas.Load(fstest.MapFS{"d.yaml": {Data: text}})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(set.Views, func(a, b *schemas.View) int { return a.Pos.Line - b.Pos.Line }) // as the file has them
	return &dataset{name: name, event: set.Events[0], views: set.Views, kinds: []string{compacted}}, nil
}

// plans compiles some of the views, in the order in which their file has them.
func (d *dataset) plans(views []string) ([]*view.Plan, error) {
	set := d.set(views)
	plans, err := view.CompileSet(&set)
	slices.SortFunc(plans, func(a, b *view.Plan) int {
		return slices.Index(views, a.Name()) - slices.Index(views, b.Name())
	})
	return plans, err
}

func (d *dataset) set(views []string) schemas.Set {
	out := schemas.Set{Events: []*schemas.Event{d.event}}
	for _, v := range d.views {
		if slices.Contains(views, v.Name) {
			out.Views = append(out.Views, v)
		}
	}
	return out
}

// first names the first n views.
func (d *dataset) first(n int) []string {
	var out []string
	for _, v := range d.views[:min(n, len(d.views))] {
		out = append(out, v.Name)
	}
	return out
}

// sketchFree are those of the views whose measures keep no sketches.
func (d *dataset) sketchFree(views []string) ([]string, error) {
	plans, err := d.plans(views)
	var out []string
	for _, p := range plans {
		if !slices.ContainsFunc(p.Measures, func(m view.Measure) bool { return sketches(m) }) {
			out = append(out, p.Name())
		}
	}
	return out, err
}

func sketches(m view.Measure) bool { return m.Func.Name() == "uniq" || m.Func.Name() == "quantiles" }

// history is the root directory of one of the histories.
func (d *dataset) history(kind string) string { return filepath.Join(d.dir, kind) }

// files is the glob of a history's Parquet files, below a root directory.
func (d *dataset) files(root string) string {
	return filepath.Join(root, d.event.Name, "_date=*", "*.parquet")
}

// open returns the newest version of a history.
func (d *dataset) open(ctx context.Context, root string) (*history.Table, *history.Snapshot, error) {
	t, err := history.Open(ctx, root, d.event)
	if err != nil {
		return nil, nil, err
	}
	s, err := t.Snapshot(ctx)
	return t, s, err
}

// generatorVersion changes with the events that a Traffic stands for.
const generatorVersion = 1

// pageviews makes the dataset of generated events below dir, or finds it there.
func pageviewsIn(ctx context.Context, dir string, t Traffic, say func(string, ...any)) (*dataset, error) {
	d, err := definitionsOf("pageview")
	if err != nil {
		return nil, err
	}
	d.traffic, d.kinds = t, []string{compacted, raw}
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", generatorVersion, text, must(json.Marshal(d.event))))
	d.dir = filepath.Join(dir, "pageview-"+hex.EncodeToString(sum[:6]))
	if err := d.make(ctx, raw, say, func(table *history.Table) error { return t.load(ctx, table) }); err != nil {
		return nil, err
	}
	return d, d.make(ctx, compacted, say, func(table *history.Table) error { return d.compact(ctx, table) })
}

// flightsIn imports the real flights below dir, or finds them there. They have no duplicates, as their
// ids are made from row numbers, and so one history.
func flightsIn(ctx context.Context, dir string, say func(string, ...any)) (*dataset, error) {
	d, err := definitionsOf("flights")
	if err != nil {
		return nil, err
	}
	source, err := devserver.FlightsPath()
	if err != nil {
		return nil, err
	}
	d.dir = filepath.Join(dir, "flights")
	err = d.make(ctx, compacted, say, func(table *history.Table) error {
		_, err := history.Import(ctx, table, history.ImportConfig{Path: source, Map: map[string]string{"time": "date"}})
		return err
	})
	return d, err
}

// compact is what `watershed compact` and `watershed vacuum` make of the raw history.
func (d *dataset) compact(ctx context.Context, table *history.Table) error {
	root := filepath.Dir(table.Dir())
	if err := os.RemoveAll(table.Dir()); err != nil {
		return err
	}
	if err := clone(d.history(raw), root); err != nil {
		return err
	}
	if _, err := history.Compact(ctx, root, history.CompactOptions{App: app}); err != nil {
		return err
	}
	_, err := history.Vacuum(ctx, root, history.VacuumOptions{App: app, Retention: time.Nanosecond})
	return err
}

// make fills a history unless it is there whole.
func (d *dataset) make(ctx context.Context, kind string, say func(string, ...any), fill func(*history.Table) error) error {
	ready := filepath.Join(d.dir, kind+".ready")
	if _, err := os.Stat(ready); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	began := time.Now()
	if err := os.RemoveAll(d.history(kind)); err != nil { // half of one
		return err
	}
	table, err := history.Open(ctx, d.history(kind), d.event)
	if err != nil {
		return err
	}
	if err := fill(table); err != nil {
		return err
	}
	snap, err := table.Snapshot(ctx)
	if err != nil {
		return err
	}
	var bytes int64
	for _, f := range snap.Files {
		bytes += f.Size
	}
	say("made the %s history: %d rows in %d files, %.1f bytes a row, %.1f s", kind, snap.Rows(), len(snap.Files), float64(bytes)/float64(snap.Rows()), time.Since(began).Seconds())
	return os.WriteFile(ready, nil, 0o600)
}

// clone makes a copy of a history that commits may change: the files, which never change, are linked.
func clone(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
}

// must is for what cannot fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
