package history

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
)

// A Problem is something in history that is not as it was committed.
type Problem struct {
	Type string // the event type
	Path string // the file, or the log
	Err  error
}

func (p Problem) String() string { return fmt.Sprintf("%s: %s: %v", p.Type, p.Path, p.Err) }

// A VerifyReport is what Verify read.
type VerifyReport struct {
	Types    int
	Files    int
	Rows     int64
	Bytes    int64
	Problems []Problem
}

// Verify reads every live file of every table below root again: its hash must be the one committed, and
// its pages must decode to the rows committed. An error means that it could not be done, not that
// something is wrong: that is in the report.
func Verify(ctx context.Context, root string) (VerifyReport, error) {
	var r VerifyReport
	logs, err := filepath.Glob(filepath.Join(root, "*", logDirName))
	if err != nil {
		return r, fmt.Errorf("verify %s: %w", root, err)
	}
	for _, dir := range logs {
		t := readOnly(filepath.Dir(dir))
		err := t.load(ctx)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.Types++
		if err != nil {
			r.Problems = append(r.Problems, Problem{t.event.Name, dir, err})
			continue
		}
		for _, f := range t.state.snapshot().Files {
			if err := t.verifyFile(ctx, f); err != nil {
				if ctx.Err() != nil {
					return r, ctx.Err()
				}
				r.Problems = append(r.Problems, Problem{t.event.Name, filepath.Join(t.dir, filepath.FromSlash(f.Path)), err})
			}
			r.Files++
			r.Rows += f.Rows
			r.Bytes += f.Size
		}
	}
	return r, nil
}

func (t *Table) verifyFile(ctx context.Context, f File) error {
	file, err := os.Open(filepath.Join(t.dir, filepath.FromSlash(f.Path)))
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err != nil {
		return err
	}
	if n != f.Size {
		return fmt.Errorf("%d bytes, not the %d committed", n, f.Size)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return errors.New("its hash is not the one committed")
	}
	var rows int64
	err = t.Scan(ctx, f, []string{schemas.SeqColumn, schemas.RowColumn}, func(rec arrow.Record) error {
		rows += rec.NumRows()
		return nil
	})
	if err == nil && rows != f.Rows {
		err = fmt.Errorf("%d rows, not the %d committed", rows, f.Rows)
	}
	return err
}
