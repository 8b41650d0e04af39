package batch

import (
	"context"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/batch/history"
	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// drops says which rows of a date's files are duplicates.
type drops struct {
	rows      [][]int32 // per file: ascending row numbers in the file
	n         int
	conflicts []Conflict
	differing int // duplicates whose payload is not the winner's
}

// findDuplicates finds the rows whose identity another row of the date has that stands before
// them. Files whose rows are known to be distinct, and alone on their date, are not read.
func findDuplicates(ctx context.Context, t *history.Table, files []history.File) (*drops, error) {
	d := &drops{rows: make([][]int32, len(files))}
	if len(files) == 0 || len(files) == 1 && files[0].Unique {
		return d, nil
	}
	ev := t.Event()
	var seen identity.Table
	prints := make([][]identity.Fingerprint, len(files))
	places := make([][]identity.Place, len(files))
	for i, f := range files {
		reader := column.NewReader()
		err := t.Scan(ctx, f, []string{ev.ID, ev.Time, schemas.SeqColumn, schemas.RowColumn}, func(rec arrow.Record) error {
			b := reader.Block(rec)
			from := len(prints[i])
			var err error
			if prints[i], err = identity.Of(prints[i], ev, b); err != nil {
				return err
			}
			if places[i], err = identity.Places(places[i], b, uint32(i)); err != nil {
				return err
			}
			for j := from; j < len(prints[i]); j++ {
				seen.See(prints[i][j], places[i][j])
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	losers := make(map[identity.Fingerprint]bool)
	for i := range files {
		for j, print := range prints[i] {
			if first, _ := seen.First(print); first != places[i][j] {
				d.rows[i] = append(d.rows[i], int32(j))
				losers[print] = true
				d.n++
			}
		}
	}
	if d.n == 0 {
		return d, nil
	}
	return d, d.findConflicts(ctx, t, files, prints, losers)
}

// findConflicts reads the date again, whole, to see which duplicates differ from their winner
// in more than where they stand. Duplicates are rare; this is not the common way.
func (d *drops) findConflicts(ctx context.Context, t *history.Table, files []history.File, prints [][]identity.Fingerprint, losers map[identity.Fingerprint]bool) error {
	ev := t.Event()
	columns := make([]string, len(ev.Fields))
	for i, f := range ev.Fields {
		columns[i] = f.Name
	}
	winners := make(map[identity.Fingerprint]uint64, len(losers)) // payload hashes
	type loser struct {
		print identity.Fingerprint
		hash  uint64
		id    string
	}
	var rest []loser
	for i, f := range files {
		reader, at, drop := column.NewReader(), 0, d.rows[i]
		err := t.Scan(ctx, f, columns, func(rec arrow.Record) error {
			b := reader.Block(rec)
			for j := range b.Len() {
				print := prints[i][at+j]
				if !losers[print] {
					continue
				}
				hash, id, err := identity.Payload(ev, b, j)
				if err != nil {
					return err
				}
				if len(drop) > 0 && drop[0] == int32(at+j) {
					drop = drop[1:]
					rest = append(rest, loser{print, hash, id})
				} else {
					winners[print] = hash
				}
			}
			at += b.Len()
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, l := range rest {
		if winners[l.print] == l.hash {
			continue
		}
		d.differing++
		if len(d.conflicts) < maxConflicts {
			d.conflicts = append(d.conflicts, Conflict{Type: ev.Name, ID: l.id, Date: dateText(files[0].Date)})
		}
	}
	return nil
}
