package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// disk is what this package asks of a file system, one method for each step that can fail. Tests put
// faults between the steps.
type disk interface {
	create(path string, mode fs.FileMode) (handle, error)
	rename(from, to string) error
	link(from, to string) error
	remove(path string) error
	mkdir(path string) error
	stat(path string) (fs.FileInfo, error)
	syncDir(dir string) error
}

// handle is a file open for writing.
type handle interface {
	io.WriteCloser
	Sync() error
}

// osDisk is the operating system's.
type osDisk struct{}

func (osDisk) create(path string, mode fs.FileMode) (handle, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

func (osDisk) rename(from, to string) error          { return os.Rename(from, to) }
func (osDisk) link(from, to string) error            { return os.Link(from, to) }
func (osDisk) remove(path string) error              { return os.Remove(path) }
func (osDisk) mkdir(path string) error               { return os.Mkdir(path, 0o777) }
func (osDisk) stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

func (osDisk) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
