package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"watershed/schemas"
)

// A table's columns only ever widen: optional ones are added, required ones become optional. Whatever
// definition a file was written by, it can be read as one of the table's: what it lacks is null.
//
// A definition fits if the table can be widened so that it holds its events. So an older definition
// fits as well, and changes nothing: processes that have passed a cut and others that have not may
// hold the same table open, in any order, and the table is what the newest of them needs.

// The keys of a table's configuration.
const (
	configID      = "watershed.id"
	configTime    = "watershed.time"
	configRelaxed = "watershed.relaxed" // columns that were required once, sorted, divided by commas
)

// A MismatchError says that a table cannot hold the events of a definition.
type MismatchError struct {
	Dir    string // of the table
	Event  string
	Reason string // which change is not possible, and what is
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s holds another definition of %s: %s", e.Dir, e.Event, e.Reason)
}

const newName = "or give the changed event a new name"

// Check tells whether a definition can be the next one of its type, and changes nothing. It can if the
// type has no table yet, or if the definition has all fields of the table, with their types, and what
// it adds or changes makes fields optional. A definition that Check refuses may still be one that Open
// takes: an older one. The error is a *MismatchError if the definition does not fit.
func Check(ctx context.Context, root string, ev *schemas.Event) error {
	t := &Table{dir: filepath.Join(root, ev.Name), event: ev}
	err := t.load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = t.revise(t.state)
	}
	var columns deltaStruct
	if err == nil {
		err = json.Unmarshal([]byte(t.state.meta.SchemaString), &columns)
	}
	if err != nil {
		return fmt.Errorf("check the definition of %s: %w", ev.Name, err)
	}
	for _, c := range columns.Fields {
		f := ev.Field(c.Name)
		switch {
		case isOurs(c.Name):
		case f == nil:
			return t.mismatch("field %s is missing: keep it, "+newName, c.Name)
		case c.Nullable && !f.Optional:
			return t.mismatch("field %s is optional there, so that events may lack it: keep it optional, "+newName, c.Name)
		}
	}
	return nil
}

func isOurs(column string) bool { return strings.HasPrefix(column, "_") }

func (t *Table) mismatch(format string, args ...any) error {
	return &MismatchError{t.dir, t.event.Name, fmt.Sprintf(format, args...)}
}

// widen makes the table hold events of its definition, if it does not yet.
func (t *Table) widen(ctx context.Context) error {
	t.mu.Lock()
	m, err := t.revise(t.state)
	t.mu.Unlock()
	if err != nil || m == nil {
		return err
	}
	// If we stop before this commit, nothing happened. If we stop after it, the table has columns that no
	// file has yet: they are null, and whoever opens the table by an older definition does not see them.
	// Nobody writes a file by the new definition before this commit is there.
	_, err = t.commit(ctx, &change{operation: "UPDATE SCHEMA", revise: t.revise})
	return err
}

// revise returns the metaData by which a table in that state also holds events of the definition; nil
// if it does already.
func (t *Table) revise(s *state) (*metaData, error) {
	m := *s.meta
	for _, c := range []struct{ what, key, want string }{{"id", configID, t.event.ID}, {"time", configTime, t.event.Time}} {
		if got := m.Configuration[c.key]; got != c.want {
			return nil, t.mismatch("its %s field is %q, not %q: keep that, "+newName, c.what, got, c.want)
		}
	}
	if !slices.Equal(m.PartitionColumns, []string{dateColumn}) {
		return nil, fmt.Errorf("%s is partitioned by %v, not by %s", t.dir, m.PartitionColumns, dateColumn)
	}
	var have deltaStruct
	if err := json.Unmarshal([]byte(m.SchemaString), &have); err != nil {
		return nil, fmt.Errorf("%s: its schema cannot be read: %w", t.dir, err)
	}
	relaxed := strings.FieldsFunc(m.Configuration[configRelaxed], func(r rune) bool { return r == ',' })
	want, nowRelaxed, err := t.merge(have, relaxed)
	if err != nil {
		return nil, err
	}
	if slices.EqualFunc(want.Fields, have.Fields, deltaField.equal) {
		return nil, nil
	}
	text, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	m.SchemaString = string(text)
	m.Configuration = maps.Clone(m.Configuration)
	if slices.Sort(nowRelaxed); len(nowRelaxed) > 0 {
		m.Configuration[configRelaxed] = strings.Join(nowRelaxed, ",")
	}
	return &m, nil
}

// merge returns the table's columns widened by the definition, and those that were required once.
func (t *Table) merge(have deltaStruct, relaxed []string) (deltaStruct, []string, error) {
	columns, relaxed := slices.Clone(have.Fields), slices.Clone(relaxed)
	declared := len(columns)
	for i, c := range columns {
		f := t.event.Field(c.Name)
		switch {
		case isOurs(c.Name):
			declared = min(declared, i) // they are the last
		case f == nil && !c.Nullable:
			return have, nil, t.mismatch("field %s is missing, and every event there has it: keep it, "+newName, c.Name)
		case f == nil: // an older definition
		case f.Type.Delta() != c.Type:
			return have, nil, t.mismatch("field %s is %s there, not %s: keep its type, "+newName, c.Name, typeName(c.Type), f.Type)
		case c.Nullable && !f.Optional && !slices.Contains(relaxed, c.Name):
			return have, nil, t.mismatch("field %s is optional there, so that events may lack it: keep it optional, "+newName, c.Name)
		case !c.Nullable && f.Optional:
			columns[i].Nullable, relaxed = true, append(relaxed, c.Name)
		}
	}
	if !slices.EqualFunc(columns[declared:], ownColumns(), deltaField.equal) {
		return have, nil, fmt.Errorf("%s: its last columns are %v, not %v", t.dir, columns[declared:], ownColumns())
	}
	var added []deltaField
	for _, f := range t.event.Fields {
		at := slices.IndexFunc(columns, func(c deltaField) bool { return strings.EqualFold(c.Name, f.Name) })
		switch {
		case at >= 0 && columns[at].Name != f.Name:
			return have, nil, t.mismatch("field %s is written %s there: keep that, "+newName, f.Name, columns[at].Name)
		case at >= 0:
		case !f.Optional:
			return have, nil, t.mismatch("field %s is new, and the events there have none: make it optional, "+newName, f.Name)
		default:
			added = append(added, columnOf(f))
		}
	}
	have.Fields = slices.Insert(columns, declared, added...)
	return have, relaxed, nil
}

// typeName is the name of a Delta type in event files.
func typeName(delta string) string {
	for k := schemas.String; k <= schemas.Date; k++ {
		if t := (schemas.Type{Kind: k}); t.Delta() == delta {
			return t.String()
		}
	}
	return delta
}

// sameDefinition tells whether records of two definitions have the same columns.
func sameDefinition(a, b *schemas.Event) bool {
	return a.ID == b.ID && a.Time == b.Time && slices.EqualFunc(a.Fields, b.Fields, func(x, y schemas.Field) bool {
		return x.Name == y.Name && x.Type == y.Type && x.Optional == y.Optional
	})
}
