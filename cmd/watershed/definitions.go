package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"watershed/batch"
	"watershed/batch/history"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
)

// defaultDefinitions is where definitions are looked for when no directory is given.
const defaultDefinitions = "schemas"

// loadDefinitions reads and compiles the definitions of a directory; without one those of
// ./schemas, and if that has none the shipped example. It returns where they came from.
func loadDefinitions(dir string) (*schemas.Set, string, error) {
	if dir == "" && hasDefinitions(defaultDefinitions) {
		dir = defaultDefinitions
	}
	var set *schemas.Set
	var err error
	if dir == "" {
		dir = "the shipped example"
		set, err = schemas.Load(schemas.Examples())
	} else {
		if st, statErr := os.Stat(dir); statErr != nil || !st.IsDir() {
			return nil, dir, usage("definitions: %s is not a directory", dir)
		}
		set, err = schemas.LoadDir(dir)
	}
	var mistakes schemas.Errors
	if err != nil && !errors.As(err, &mistakes) {
		return nil, dir, err
	}
	if len(set.Events) == 0 && len(mistakes) == 0 {
		return nil, dir, usage("definitions: %s holds no event files (*.yaml)", dir)
	}
	var more schemas.Errors
	if _, err := view.CompileSet(set); err != nil && !errors.As(err, &more) {
		return nil, dir, err
	}
	if mistakes = append(mistakes, more...).Sorted(); len(mistakes) > 0 {
		return nil, dir, mistakes
	}
	return set, dir, nil
}

// hasDefinitions reports whether a directory holds definition files of its own: not below an
// examples directory.
func hasDefinitions(dir string) (found bool) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fs.SkipDir
		case d.IsDir() && (d.Name() == "examples" || d.Name() == "testdata"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml"):
			found = true
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// ensureCut publishes cut 1 when the log has no cut: from there on the log itself says which
// definitions hold. Definitions on disk that differ from the last cut's are taken over by the
// next batch; until then it says so.
//
// A log without a cut that history or builds stand in is another one than was archived: cut 1
// would let views begin with it, and show a part.
func (a *app) ensureCut(ctx context.Context, e *engines) error {
	log := e.log
	last, ok, err := log.LastCut(ctx)
	if err != nil {
		return err
	}
	if ok && a.cfg.Definitions == "" && !hasDefinitions(defaultDefinitions) {
		return nil // the log's own definitions hold
	}
	set, from, err := loadDefinitions(a.cfg.Definitions)
	if err != nil {
		return err
	}
	if ok {
		if last.Definitions.Hash() != set.Hash() {
			a.log.Warn("the definitions on disk are not those of the log; run `watershed batch` to take them over", "directory", from, "cut", last.Number)
		}
		return nil
	}
	if err := batch.CheckHistory(ctx, a.cfg.History, set); err != nil {
		return err
	}
	if err := a.checkUnused(ctx, e); err != nil {
		return err
	}
	cut, err := log.PublishCut(ctx, schemas.Cut{}, *set, schemas.Set{})
	if errors.Is(err, eventlog.ErrCutTaken) {
		return nil // another process was first
	}
	if err != nil {
		return fmt.Errorf("publish the first cut: %w", err)
	}
	a.log.Info("published the first cut", "cut", cut.Number, "definitions", from, "views", len(set.Views))
	return nil
}

// checkUnused refuses a log that nothing was ever cut in, though something stands in it.
func (a *app) checkUnused(ctx context.Context, e *engines) error {
	tables, unreadable, err := history.Standings(ctx, a.cfg.History, a.appID())
	if err != nil {
		return err
	}
	if len(unreadable) > 0 {
		name := sortedKeys(unreadable)[0]
		return fmt.Errorf("the log has no cut, and history of %s may stand in it, but cannot be read: %w; `watershed repair` says what can be done", name, unreadable[name])
	}
	for _, name := range sortedKeys(tables) {
		if at := tables[name].Position; at.Seq > 0 {
			return fmt.Errorf("the log has no cut, but history of %s stands at its position %d: it was lost or made anew; `watershed repair` goes on from history", name, at.Seq)
		}
	}
	live, err := e.db.Live(ctx)
	if err == nil && live.Build > 0 {
		return fmt.Errorf("the log has no cut, but build %d is live: it was lost or made anew; `watershed repair` goes on from history", live.Build)
	}
	return nil // a ClickHouse without a live build has nothing that stands in the log
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func eventNames(s *schemas.Set) string {
	names := make([]string, len(s.Events))
	for i, e := range s.Events {
		names[i] = e.Name
	}
	return strings.Join(names, ", ")
}
