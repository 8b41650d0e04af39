package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"watershed/schemas"
)

// Position is up to where the snapshot holds the log that app names; the zero Position if nothing
// of it was archived.
func (s *Snapshot) Position(app string) schemas.Position {
	seq, ok := s.Txns[app]
	if !ok || seq <= 0 {
		return schemas.Position{}
	}
	return schemas.Position{Seq: uint64(seq), Hash: uint64(s.Txns[app+hashSuffix])}
}

// A Standing is how far a type's table holds a log.
type Standing struct {
	Position schemas.Position // the archiver goes on behind it; zero: with the log's beginning, or not known
	Ended    bool             // the type was defined no more there, and takes no events
	Last     uint64           // the highest sequence of an event in the table
}

// Standings are, by event type, how far all tables below root hold the log that app names, whether
// anything defines their types now or not; of types that are set aside too. Tables that cannot be read
// are in unreadable, with the reason.
func Standings(ctx context.Context, root, app string) (tables map[string]Standing, unreadable map[string]error, err error) {
	logs, err := filepath.Glob(filepath.Join(root, "*", logDirName))
	if err != nil {
		return nil, nil, fmt.Errorf("tables of %s: %w", root, err)
	}
	a := &Archiver{cfg: ArchiverConfig{App: app}}
	tables, unreadable = map[string]Standing{}, map[string]error{}
	noted := map[string]uint64{}
	for _, dir := range logs {
		name := filepath.Base(filepath.Dir(dir))
		t := readOnly(filepath.Dir(dir))
		err := t.load(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			unreadable[name] = err
			continue
		}
		for other, from := range a.noted(t.state.txns) {
			noted[other] = max(noted[other], from.Seq)
		}
		p, begun, ended := a.stands(t)
		if !begun {
			continue
		}
		s := Standing{Position: p, Ended: ended}
		for _, f := range t.state.files {
			s.Last = max(s.Last, f.file.MaxSeq)
		}
		tables[name] = s
	}
	// A type that was to begin, and was set aside, does not say so itself.
	for name, from := range noted {
		if s, there := tables[name]; (!there || s.Ended && from > s.Position.Seq) && unreadable[name] == nil {
			tables[name] = Standing{Last: max(s.Last, s.Position.Seq)}
		}
	}
	return tables, unreadable, nil
}
