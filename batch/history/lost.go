package history

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"watershed/schemas"
)

// LostTables are the types that a cut's epoch has events of and that have no table, though the other tables
// stand behind the cut, or at it while the cut before defined them: what the archiver refuses to begin.
// at is where the others stand, and cut the one that holds there.
func LostTables(ctx context.Context, root, app string, at schemas.Position, source OpenSource) ([]*schemas.Event, error) {
	if at.Seq == 0 {
		return nil, nil
	}
	reader, cut, err := source(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("the log at %d: %w", at.Seq, err)
	}
	reader.Close()
	a := &Archiver{cfg: ArchiverConfig{Root: root, App: app, Source: source}}
	r := &reading{owner: a}
	standings, unreadable, err := Standings(ctx, root, app)
	if err != nil {
		return nil, err
	}
	var out []*schemas.Event
	for _, ev := range definedBy(cut) {
		if _, there := standings[ev.Name]; there || unreadable[ev.Name] != nil || liesBefore(at, cut) {
			continue
		}
		var lost *lostTableError
		switch err := r.mayBeginHere(ctx, ev, cut, at); {
		case err == nil:
		case errors.As(err, &lost):
			out = append(out, ev)
		default:
			return nil, err
		}
	}
	return out, nil
}

// BeginLost makes an empty table of a lost type that stands at a position: what the log has behind it comes
// back, and what lay before is given up, unless the position is zero and the log whole. It changes nothing
// if the type has begun meanwhile.
func BeginLost(ctx context.Context, root, app string, ev *schemas.Event, at schemas.Position) error {
	a := &Archiver{cfg: ArchiverConfig{Root: root, App: app}, step: func(string) {}, positions: map[string]schemas.Position{}}
	t, err := a.openType(ctx, ev)
	if err != nil || t.active {
		return err
	}
	// If we stop before this commit, the table is empty and says nothing of the log: it is lost still.
	if err := t.commit(ctx, at, false); err != nil {
		return fmt.Errorf("begin %s again: %w", filepath.Join(root, ev.Name), err)
	}
	return nil
}
