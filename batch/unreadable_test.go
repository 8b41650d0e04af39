package batch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"watershed/serving/store"
)

// spoil damages all parts of a table on disk, as ClickHouse reads them next.
func (w *world) spoil(table, pattern string, how func(path string) error) {
	w.t.Helper()
	w.exec(fmt.Sprintf("SYSTEM STOP MERGES %s.%s", w.name, table)) // or they replace what is damaged
	paths := w.rows(fmt.Sprintf("SELECT path FROM system.parts WHERE active AND database = '%s' AND table = '%s'", w.name, table))
	if len(paths) == 0 {
		w.t.Fatalf("table %s has no parts", table)
	}
	for _, path := range paths {
		var dir string
		w.check(json.Unmarshal([]byte(path), &dir))
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		w.check(err)
		if len(files) == 0 {
			w.t.Fatalf("no %s in %s", pattern, path)
		}
		for _, f := range files {
			w.check(how(f))
		}
	}
	w.exec("SYSTEM DROP MARK CACHE")
	w.exec("SYSTEM DROP UNCOMPRESSED CACHE")
}

func emptyFile(path string) error { return os.Truncate(path, 0) }

func flipBit(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 4
	return os.WriteFile(path, b, 0o644)
}

// newest is what a role's counter in the log says.
func (w *world) newest(ctx context.Context, role string) (uint64, error) {
	return w.log.Last(ctx, "term."+role)
}

// A table that ClickHouse cannot read any more is found and named with what heals, it counts as lost, and
// a batch heals that. Until then no view answers with a part.
func TestTablesThatCannotBeReadAreRenewed(t *testing.T) {
	spoils := map[string]func(w *world, table string){
		"marks": func(w *world, table string) { w.spoil(table, "*.cmrk*", emptyFile) },
		"data":  func(w *world, table string) { w.spoil(table, "*.bin", flipBit) },
		"gone":  func(w *world, table string) { w.spoil(table, "*.cmrk*", os.Remove) },
		"aside": func(w *world, table string) { // as when ClickHouse starts again
			w.spoil(table, "*.bin", emptyFile)
			w.exec(fmt.Sprintf("DETACH TABLE %s.%s", w.name, table))
			w.exec(fmt.Sprintf("ATTACH TABLE %s.%s", w.name, table))
		},
	}
	for table, ways := range map[string][]string{
		"terms": {"marks", "aside"}, "positions": {"marks"}, "begins": {"data"}, "slices": {"marks"}, "condemned": {"marks"},
		"builds": {"gone"}, "live": {"data", "aside"}, "audits": {"marks"}, "__batch": {"marks", "data", "aside"}, "__speed": {"gone"},
	} {
		for _, name := range ways {
			t.Run(table+"/"+name, func(t *testing.T) {
				w := newWorld(t)
				w.archive()
				w.importFile(hits(0, 100, 1, 0) + hits(100, 200, 2, 0))
				stop := w.foldUntil()
				w.batch(nil)
				if table == "condemned" { // it has rows when builds are not kept any more
					for range 5 {
						w.batch(nil)
					}
				}
				w.publish(hits(200, 250, 3, 0))
				w.level()
				w.batch(nil)
				w.publish(hits(250, 255, 3, 0))
				w.level()
				stop()
				w.archived()
				used := w.rows(fmt.Sprintf("SELECT slice FROM %s.slices", w.name))
				terms := w.rows(fmt.Sprintf("SELECT role, max(term) FROM %s.terms GROUP BY role ORDER BY role", w.name))
				full := table
				if strings.HasPrefix(table, "__") {
					full = w.plans()[0].ID() + table
				}
				spoils[name](w, full)
				w.renewed(full, name == "aside")
				if got := w.rows(fmt.Sprintf("SELECT role, max(term) FROM %s.terms GROUP BY role ORDER BY role", w.name)); !slices.Equal(got, terms) {
					t.Errorf("the newest terms are %v; want %v", got, terms)
				}
				damage, err := w.db.Check(t.Context())
				w.check(err)
				w.check(w.db.Seal(t.Context(), damage))
				if slices.Contains([]string{"terms", "positions", "condemned", "audits"}, table) {
					w.exact() // nothing that views show was lost
				} else {
					w.throws("sites")
				}
				w.fold()
				if r := w.batch(nil); !r.Flipped || r.Drifted() > 0 {
					t.Errorf("healed by %+v; want a build without drift", r)
				}
				w.exact()
				w.publish(hits(255, 260, 3, 0))
				w.level()
				w.batch(nil)
				w.exact()
				if damage, err := w.db.Check(t.Context()); err != nil || !damage.None() {
					t.Errorf("afterwards: %q, %v", damage, err)
				}
				again := w.rows(fmt.Sprintf("SELECT slice FROM %s.slices", w.name))
				if table == "slices" && slices.ContainsFunc(again, func(id string) bool { return slices.Contains(used, id) }) {
					t.Errorf("slices %v were used again: %v", used, again)
				}
			})
		}
	}
}

// renewed fails the test unless a damaged table is found, alone and with what heals, and can be renewed.
func (w *world) renewed(table string, aside bool) {
	w.t.Helper()
	ctx := w.t.Context()
	w.reopen() // the damage keeps nobody from connecting
	if !aside {
		got, err := w.db.Query(ctx, store.Query{SQL: fmt.Sprintf("SELECT * FROM %s.%s", w.name, table)})
		if err == nil {
			for got.Next() {
			}
			err = errors.Join(got.Err(), got.Close())
		}
		var damaged *store.Error
		if !errors.As(err, &damaged) || !damaged.Damaged() || !strings.Contains(damaged.Message(), "`watershed repair`") {
			w.t.Errorf("reading %s: %v; want an error that names what heals", table, err)
		}
	}
	if aside && strings.Contains(table, "__") { // a plan's table has less, which Check finds
		return
	}
	found, err := w.db.Unreadable(ctx)
	w.check(err)
	if len(found) != 1 || found[0].Table != table {
		w.t.Fatalf("found %v; want %s", found, table)
	}
	if suspect, err := w.db.Suspect(ctx); err != nil || !suspect {
		w.t.Errorf("suspect is %v, %v; want true", suspect, err)
	}
	w.check(w.db.Renew(ctx, found, w.newest))
	found, err = w.db.Unreadable(ctx)
	w.check(err)
	suspect, err := w.db.Suspect(ctx)
	w.check(err)
	if len(found) > 0 || suspect {
		w.t.Errorf("renewed, found %v, suspect %v; want nothing", found, suspect)
	}
}
