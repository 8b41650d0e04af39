package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// diskBytes are the sizes of the disks of the log, of history and of ClickHouse.
func diskBytes() map[string]int64 {
	return map[string]int64{"nats": 256 << 20, "history": 256 << 20, "clickhouse": 3 << 30}
}

// disks are small file systems of their own for the data of a life, so that each can be filled.
type disks struct {
	dir     string
	mounted []string
}

// newDisks mounts them; with on false there are none, and the data lies on the disk of dir.
func newDisks(dir string, on bool) (*disks, error) {
	d := &disks{dir: dir}
	for name, size := range diskBytes() {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return d, err
		}
		if !on {
			continue
		}
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size)); err != nil {
			return d, errors.Join(fmt.Errorf("mount a disk on %s: %w", path, err), d.close())
		}
		d.mounted = append(d.mounted, name)
	}
	return d, nil
}

// canMount reports why small disks cannot be had here; nil: they can.
func canMount() error {
	dir, err := os.MkdirTemp("", "watershed-faults-mount-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=65536"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return syscall.Unmount(dir, 0)
}

// fill takes all the space that a disk has left, and returns what gives it back.
func (d *disks) fill(name string) (free func() error, err error) {
	path := filepath.Join(d.dir, name, "filler")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	free = func() error { return os.Remove(path) }
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			return nil, errors.Join(err, f.Close(), free())
		}
	}
	return free, f.Close()
}

// keep copies what lies on the disks into the directory below, where it stays when they are gone.
func (d *disks) keep() error {
	var errs []error
	for _, name := range d.mounted {
		errs = append(errs, copyTree(filepath.Join(d.dir, name), filepath.Join(d.dir, name+".kept")))
	}
	return errors.Join(errs...)
}

// close unmounts them.
func (d *disks) close() error {
	if d == nil {
		return nil
	}
	var errs []error
	for _, name := range d.mounted {
		errs = append(errs, syscall.Unmount(filepath.Join(d.dir, name), syscall.MNT_DETACH))
	}
	d.mounted = nil
	return errors.Join(errs...)
}
