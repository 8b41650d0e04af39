package history

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"watershed/internal/crash"
	"watershed/internal/durable"
	"watershed/schemas"
)

// commitFile is for a damaged log of a table.
func (r *repair) commitFile(ctx context.Context, m *Remedy) error {
	t := readOnly(r.dir(m.Problem.Type))
	v := m.Problem.version
	names, err := t.logNames()
	if err != nil {
		return err
	}
	if err := t.load(ctx); err == nil {
		m.Action = fmt.Sprintf("no harm to the newest version, which a checkpoint behind version %d leads to; vacuum removes what lies before it", v)
		return nil
	} else if ctx.Err() != nil {
		return ctx.Err()
	}
	m.Action = fmt.Sprintf("take %s back from a backup, or the whole table; nothing was changed", filepath.Base(t.commitPath(v)))
	if v == 0 || len(names) == 0 || names[len(names)-1].version != v || t.missing(v) {
		return nil
	}
	s, err := t.replay(ctx, v-1)
	if err != nil {
		return nil // damaged before as well
	}
	text, err := os.ReadFile(t.commitPath(v))
	if err != nil {
		return err
	}
	why, action := r.lostWith(ctx, m.Problem.Type, s, text), "the archiver makes it again from the log"
	if isOf(text, opCompact) {
		why, action = t.replacedBy(s), "the files that it compacted are live again"
	}
	if why != "" && !r.opts.AcceptLoss {
		m.Action = why + ": take the commit back from a backup, or accept the loss"
		return nil
	}
	m.Action = "the last commit cannot be read: it is set aside, and " + action
	if r.opts.DryRun {
		return nil
	}
	// If we stop before this, nothing has changed. After it the table is what it was before that commit, its
	// position too: what it archived is read from the log again, what it compacted is as it was, and the files
	// that it added are strays.
	if _, err := durable.SetAside(t.commitPath(v)); err != nil {
		return err
	}
	crash.At("history.repair-aside")
	m.Done = true
	return nil
}

// isOf tells whether the text of a commit says that operation. A string within it could not: its quotes are
// escaped there.
func isOf(text []byte, operation string) bool {
	return bytes.Contains(text, fmt.Appendf(nil, `"operation":%q`, operation))
}

// replacedBy says what would be lost with a last commit that only compacted, of which s is the table before;
// nothing if all of the files that were live then are there.
func (t *Table) replacedBy(s *state) string {
	gone := 0
	for _, f := range s.snapshot().Files {
		if info, err := os.Stat(t.onDisk(f)); err != nil || info.Size() != f.Size {
			gone++
		}
	}
	if gone == 0 {
		return ""
	}
	return fmt.Sprintf("the last commit cannot be read, and of the files that were live before this compaction %d are gone", gone)
}

// lostWith says what would be lost with the last commit; nothing if the archiver can make it again.
func (r *repair) lostWith(ctx context.Context, typ string, s *state, text []byte) string {
	if !isOf(text, opArchive) {
		return "the last commit cannot be read, and may be an import, which would have to be made again"
	}
	seq, begun := s.txns[r.app]
	if !begun || r.source == nil {
		return "the last commit cannot be read, and there is no log to make it from"
	}
	source, _, err := r.source(ctx, schemas.Position{Seq: uint64(seq), Hash: uint64(s.txns[r.app+hashSuffix])}, typ)
	if err != nil {
		return fmt.Sprintf("the last commit cannot be read, and the log does not have all that it archived (%v)", err)
	}
	source.Close()
	return ""
}
