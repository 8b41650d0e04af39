package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Holder says who locked a directory.
type Holder struct {
	PID   int       `json:"pid"`   // 0 if it could not be read
	Since time.Time `json:"since"` // when it took the lock
}

// LockedError means that another process, or another part of this one, has the directory.
type LockedError struct {
	Path   string // the lock file
	Holder Holder
}

func (e *LockedError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("%s is locked by another process", e.Path)
	}
	return fmt.Sprintf("%s is locked by process %d since %s", e.Path, e.Holder.PID, e.Holder.Since.Format(time.RFC3339))
}

// DirLock is an exclusive claim on a directory. The kernel gives it up when the last process that has
// it open is gone, so it never outlives a crash.
type DirLock struct{ file *os.File }

// Lock claims dir, which must exist, by a lock on the file LOCK in it. It does not wait: a claimed
// directory is a *LockedError.
func Lock(dir string) (*DirLock, error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{Path: path, Holder: readHolder(f)}
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	// If we stop between here and the end, the lock is free again and names a holder that is gone; that
	// does no harm, since the name is only read while the lock is held.
	if err := writeHolder(f, Holder{PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second)}); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, errors.Join(err, f.Close()))
	}
	return &DirLock{file: f}, nil
}

// File is the open lock file. A child process that inherits it shares the claim: the directory is free
// when both have closed it or are gone.
func (l *DirLock) File() *os.File { return l.file }

// Close gives up this process's part of the claim. The file LOCK stays: removing it would let two
// processes lock two files of the same name.
func (l *DirLock) Close() error { return l.file.Close() }

func writeHolder(f *os.File, h Holder) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(text, '\n'), 0)
	return err
}

// readHolder returns the zero Holder for a lock whose holder has not written itself down yet.
func readHolder(f *os.File) Holder {
	var h Holder
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<10))
	if err != nil || json.Unmarshal(text, &h) != nil {
		return Holder{}
	}
	return h
}
