package history

import (
	"context"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// identities are the identities and dates of a record's events, if compacted files of the table hold some of the
// log; else nil.
func (t *Table) identities(rec arrow.Record) (prints []identity.Fingerprint, dates []int32, err error) {
	if !slices.ContainsFunc(t.state.snapshot().Files, func(f File) bool { return f.AsOf > 0 && !f.Import }) {
		return nil, nil, nil
	}
	if prints, err = identity.Of(nil, t.event, column.NewReader().Block(rec)); err != nil {
		return nil, nil, err
	}
	at := rec.Schema().FieldIndices(t.event.Time)[0]
	for _, us := range rec.Column(at).(*array.Timestamp).TimestampValues() {
		dates = append(dates, dateOf(int64(us)))
	}
	return prints, dates, nil
}

// leaveOut takes away from events that are missing in history those that a compaction has left out as
// duplicates: a compacted file of the log's events has one of their identity that stands before them. That
// an import has one is no reason. It returns how many.
func (t *Table) leaveOut(ctx context.Context, missing map[place]logged) (n int64, err error) {
	if len(missing) == 0 {
		return 0, nil
	}
	by, dates := map[identity.Fingerprint][]place{}, map[int32]bool{}
	for p, event := range missing {
		by[event.print] = append(by[event.print], p)
		dates[event.date] = true
	}
	columns := []string{t.event.ID, t.event.Time, schemas.SeqColumn, schemas.RowColumn}
	for _, f := range t.state.snapshot().Files {
		if f.AsOf == 0 || f.Import || !dates[f.Date] {
			continue
		}
		reader := column.NewReader()
		var prints []identity.Fingerprint
		err := t.Scan(ctx, f, columns, func(rec arrow.Record) (err error) {
			if prints, err = identity.Of(prints[:0], t.event, reader.Block(rec)); err != nil {
				return err
			}
			for i, first := range placesOf(rec) {
				for _, p := range by[prints[i]] {
					if _, still := missing[p]; still && first.before(p) {
						delete(missing, p)
						n++
					}
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (p place) before(q place) bool { return p.seq < q.seq || p.seq == q.seq && p.row < q.row }
