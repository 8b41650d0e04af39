package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/parquet-go/parquet-go"

	"watershed/internal/crash"
	"watershed/internal/durable"
)

const (
	checkpointEvery    = 100 // versions
	checkpointSuffix   = ".checkpoint.parquet"
	lastCheckpointName = "_last_checkpoint"

	// tombstoneAge is how long a checkpoint remembers a removed file, for vacuum.
	tombstoneAge = 30 * 24 * time.Hour
)

// lastCheckpoint is the content of _last_checkpoint.
type lastCheckpoint struct {
	Version int64 `json:"version"`
	Size    int64 `json:"size"` // actions
}

// checkpointRow is one action in a checkpoint: one member is set.
type checkpointRow struct {
	Txn      *txn      `parquet:"txn,optional"`
	Add      *add      `parquet:"add,optional"`
	Remove   *remove   `parquet:"remove,optional"`
	MetaData *metaData `parquet:"metaData,optional"`
	Protocol *protocol `parquet:"protocol,optional"`
}

func (t *Table) checkpointPath(v int64) string {
	return filepath.Join(t.logDir(), fmt.Sprintf("%020d%s", v, checkpointSuffix))
}

// writeCheckpoint writes the checkpoint of the state's version. All writers of one version write the
// same actions, so whichever is first is as good.
func (t *Table) writeCheckpoint(s *state) error {
	rows := s.checkpointRows(t.now().Add(-tombstoneAge).UnixMilli())
	var b bytes.Buffer
	w := parquet.NewGenericWriter[checkpointRow](&b, parquet.Compression(&parquet.Zstd))
	if _, err := w.Write(rows); err != nil {
		return fmt.Errorf("checkpoint %d: %w", s.version, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("checkpoint %d: %w", s.version, err)
	}
	if err := durable.PutIfAbsent(t.checkpointPath(s.version), b.Bytes()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	crash.At("history.checkpoint")
	// If we stop here, the hint names an older checkpoint: readers read more commits than they need.
	if t.lastCheckpoint() > s.version {
		return nil
	}
	hint, err := json.Marshal(lastCheckpoint{Version: s.version, Size: int64(len(rows))})
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(t.logDir(), lastCheckpointName), hint)
}

func (s *state) checkpointRows(oldest int64) []checkpointRow {
	rows := []checkpointRow{{Protocol: s.protocol}, {MetaData: s.meta}}
	for app, v := range s.txns {
		rows = append(rows, checkpointRow{Txn: &txn{AppID: app, Version: v}})
	}
	for _, l := range s.files {
		a := *l.add
		a.DataChange = false
		rows = append(rows, checkpointRow{Add: &a})
	}
	for _, r := range s.removed {
		if r.DeletionTimestamp >= oldest {
			kept := *r
			kept.DataChange = false
			rows = append(rows, checkpointRow{Remove: &kept})
		}
	}
	return rows
}

func (t *Table) readCheckpoint(v int64) (*state, error) {
	name := t.checkpointPath(v)
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := decodeCheckpoint(f, info.Size(), v)
	if err != nil {
		return nil, &CorruptError{name, err}
	}
	return s, nil
}

func decodeCheckpoint(f io.ReaderAt, size, v int64) (s *state, err error) {
	defer recoverCorrupt(&err)
	file, err := openParquet(f, size)
	if err != nil {
		return nil, err
	}
	if err := checkDeclarations(f, size, file); err != nil {
		return nil, err
	}
	r := parquet.NewGenericReader[checkpointRow](file)
	defer r.Close()
	s = newState()
	rows := make([]checkpointRow, 1024)
	for {
		clear(rows)
		n, err := r.Read(rows)
		for _, row := range rows[:n] {
			if err := s.take(action{Txn: row.Txn, Add: row.Add, Remove: row.Remove, MetaData: row.MetaData, Protocol: row.Protocol}); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if s.meta == nil || s.protocol == nil {
		return nil, errors.New("no metaData or no protocol")
	}
	s.version = v
	return s, nil
}
