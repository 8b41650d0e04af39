package durable

import (
	"errors"
	"fmt"

	"watershed/internal/crash"
)

// File is a file that is being written and has no name yet. It gets one from Commit, or is gone after
// Abort. A File is not safe for concurrent use.
type File struct {
	disk   disk
	handle handle // nil once committed or aborted
	temp   string
	path   string
}

// Create begins a file that Commit will call path. Its directory must exist.
func Create(path string) (*File, error) { return create(osDisk{}, path) }

func create(d disk, path string) (*File, error) {
	temp := tempName(path)
	h, err := d.create(temp, publicMode)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &File{disk: d, handle: h, temp: temp, path: path}, nil
}

// Write appends p, unbuffered.
func (f *File) Write(p []byte) (int, error) {
	if f.handle == nil {
		return 0, fmt.Errorf("write %s: %w", f.path, errFinished)
	}
	return f.handle.Write(p)
}

// Commit makes the file durable under its name. If the name is taken the error is fs.ErrExist and the
// file there is untouched. Whatever it returns, the File is finished.
func (f *File) Commit() error {
	if f.handle == nil {
		return fmt.Errorf("commit %s: %w", f.path, errFinished)
	}
	err := errors.Join(f.handle.Sync(), f.handle.Close())
	f.handle = nil
	if err != nil {
		return fmt.Errorf("commit %s: %w", f.path, errors.Join(err, f.disk.remove(f.temp)))
	}
	crash.At("durable.file-synced")
	// If we stop here, a temporary file is left over and path is as it was.
	if err := linkTemp(f.disk, f.temp, f.path); err != nil {
		return fmt.Errorf("commit %s: %w", f.path, err)
	}
	return nil
}

// Abort throws the file away. After Commit or Abort it does nothing, so that it can be deferred.
func (f *File) Abort() error {
	if f.handle == nil {
		return nil
	}
	err := errors.Join(f.handle.Close(), f.disk.remove(f.temp))
	f.handle = nil
	if err != nil {
		return fmt.Errorf("abort %s: %w", f.path, err)
	}
	return nil
}

// errFinished is a bug of the caller's: a File was used after Commit or Abort.
var errFinished = errors.New("file is already committed or aborted")
