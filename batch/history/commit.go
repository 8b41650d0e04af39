package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"watershed/internal/crash"
	"watershed/internal/durable"
)

// A change is what one commit does, and what must hold for it to make sense.
type change struct {
	operation string
	adds      []*add
	removes   []*remove
	txns      []txn
	expect    map[string]int64 // by app id: the version recorded so far; absent: none
	absent    string           // an app id that must not be recorded yet, or be 0

	// revise, if set, returns the table's new metaData; nil if nothing is to be done any more. It is
	// asked again after a lost race.
	revise func(*state) (*metaData, error)
}

// A conflictError says that a commit by somebody else took away what a change builds on.
type conflictError struct {
	reason string
	done   bool // somebody else has done the very thing
}

func (e *conflictError) Error() string { return e.reason }

// check holds a change against the newest state.
func (c *change) check(s *state) error {
	for _, t := range c.txns {
		want, recorded := c.expect[t.AppID]
		got, ok := s.txns[t.AppID]
		if t.AppID == c.absent && got > 0 {
			return &conflictError{fmt.Sprintf("%s is there already", t.AppID), true}
		}
		if t.AppID != c.absent && (ok != recorded || got != want) {
			return &conflictError{fmt.Sprintf("%s stands at %d (%t), not at %d (%t): another process is archiving this log",
				t.AppID, got, ok, want, recorded), false}
		}
	}
	for _, r := range c.removes {
		p, err := decodePath(r.Path)
		if err != nil {
			return err
		}
		if _, ok := s.files[p]; !ok {
			return &conflictError{fmt.Sprintf("file %s is not live any more", p), false}
		}
	}
	return nil
}

// commit puts a change at the version after the newest whose preconditions it has checked. It returns
// that version. Its error is a *conflictError if the preconditions do not hold any more. A nil error
// means that the commit is durable; after any other, whether it is there is unknown to the caller, and
// a new process finds out by reading the txns.
func (t *Table) commit(ctx context.Context, c *change) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now().UnixMilli()
	info := newCommitInfo(c.operation, now)
	actions := []action{{CommitInfo: info}}
	for _, r := range c.removes {
		actions = append(actions, action{Remove: r})
	}
	for _, a := range c.adds {
		actions = append(actions, action{Add: a})
	}
	for _, x := range c.txns {
		x.LastUpdated = now
		actions = append(actions, action{Txn: &x})
	}
	for {
		if err := t.refresh(ctx); err != nil {
			return 0, err
		}
		if err := c.check(t.state); err != nil {
			return 0, err
		}
		actions := actions
		if c.revise != nil {
			m, err := c.revise(t.state)
			if err != nil {
				return 0, err
			}
			if m == nil { // somebody else has made the very revision
				return t.state.version, nil
			}
			actions = append(slices.Clip(actions), action{MetaData: m})
		}
		// A repair may have set aside what we have read: a commit behind it would leave a hole.
		if v := t.state.version; t.missing(v) {
			return 0, &conflictError{fmt.Sprintf("version %d, which this process has read, was taken away by a repair", v), false}
		}
		v := t.state.version + 1
		// If we stop before the name is linked, the data files lie there unnamed, and nothing happened.
		err := t.put(v, actions)
		crash.At("history.commit-put")
		// If we stop after it, the commit is there, with its txns: whoever comes next goes on behind it.
		switch {
		case err == nil:
			return v, t.committed(ctx, v)
		case errors.Is(err, fs.ErrExist):
			// Somebody else has version v. Read it, check again, try the next one.
			continue
		}
		// The name may have been linked before the error. Our own commit is known by its id.
		if own, readErr := t.isOwn(v, info.ID); readErr != nil || !own {
			return 0, errors.Join(err, readErr)
		}
		if err := durable.SyncDir(t.logDir()); err != nil {
			return 0, err
		}
		return v, t.committed(ctx, v)
	}
}

func (t *Table) isOwn(v int64, id string) (bool, error) {
	actions, err := t.readCommit(v)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return len(actions) > 0 && actions[0].CommitInfo != nil && actions[0].CommitInfo.ID == id, nil
}

// committed reads our commit back and writes a checkpoint when one is due. A checkpoint only saves time
// to readers, so failing to write it is no failure of the commit: the table is right without it, the
// next one is a hundred versions on, and a disk that is full or broken fails the commits themselves.
func (t *Table) committed(ctx context.Context, v int64) error {
	ctx = context.WithoutCancel(ctx)
	if err := t.refresh(ctx); err != nil {
		return fmt.Errorf("read back commit %d: %w", v, err)
	}
	if v%checkpointEvery != 0 {
		return nil
	}
	s := t.state
	if s.version != v { // others committed since
		var err error
		if s, err = t.replay(ctx, v); err != nil {
			return fmt.Errorf("read back commit %d: %w", v, err)
		}
	}
	_ = t.writeCheckpoint(s)
	return nil
}
