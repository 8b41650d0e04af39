// Package durable puts files on disk so that they are whole or absent, whatever stops the process or
// the machine.
//
// Every write goes to a temporary file beside its target, is synced, and only then gets its name; the
// directory is synced last. A nil error therefore means that content and name survive a power cut.
// Another error leaves open whether the name is there: what it names is whole in either case, so a
// caller that must know reads it back. A process that dies leaves at most temporary files, which
// IsTemp recognises and nothing else reads.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"watershed/internal/crash"
)

const (
	tempPrefix = ".tmp-"

	publicMode fs.FileMode = 0o666 // before umask
	secretMode fs.FileMode = 0o600
)

// IsTemp tells whether name (without directory) is that of a temporary file of this package. Those
// older than any write that can still be under way may be removed.
func IsTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// WriteFile writes data to path and replaces a file that is there. Readers see the old content or the
// new, never a mixture.
func WriteFile(path string, data []byte) error {
	return replace(osDisk{}, path, data, publicMode)
}

// WriteSecret is WriteFile for content that only the file's owner may read.
func WriteSecret(path string, data []byte) error {
	return replace(osDisk{}, path, data, secretMode)
}

// PutIfAbsent writes data to path unless the name is taken; then the error is fs.ErrExist and the file
// there is untouched. Of any number of concurrent calls for one path exactly one succeeds.
func PutIfAbsent(path string, data []byte) error {
	return putIfAbsent(osDisk{}, path, data)
}

// Replace gives the file from, which must be durable, the name to, and replaces a file that is there. Both
// are in one directory.
func Replace(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("replace %s: %w", to, err)
	}
	// If we stop here, a power cut shows both names as before, or the new state.
	crash.At("durable.replaced")
	return SyncDir(filepath.Dir(to))
}

// SetAside gives a file the name of a temporary one, which it returns: nothing reads it any more, and its
// bytes are there until temporary files are removed.
func SetAside(path string) (string, error) {
	temp := tempName(path)
	if err := os.Rename(path, temp); err != nil {
		return "", fmt.Errorf("set %s aside: %w", path, err)
	}
	// If we stop here, the name may come back after a power cut: the call is made again.
	crash.At("durable.set-aside")
	return temp, SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error { return osDisk{}.syncDir(dir) }

// MkdirAll creates dir and what is missing above it, and makes each new name durable.
func MkdirAll(dir string) error { return mkdirAll(osDisk{}, filepath.Clean(dir)) }

func replace(d disk, path string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(d, path, data, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := d.rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, d.remove(temp)))
	}
	crash.At("durable.renamed")
	// If we stop here, a power cut shows the old file or the new one, each whole.
	if err := d.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func putIfAbsent(d disk, path string, data []byte) error {
	temp, err := writeTemp(d, path, data, publicMode)
	if err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	if err := linkTemp(d, temp, path); err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	return nil
}

// writeTemp leaves the whole of data, synced, in a temporary file beside path and returns its name.
func writeTemp(d disk, path string, data []byte, mode fs.FileMode) (string, error) {
	temp := tempName(path)
	f, err := d.create(temp, mode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	crash.At("durable.temp-written")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, d.remove(temp))
	}
	crash.At("durable.temp-synced")
	// If we stop here, a temporary file is left over and path is as it was.
	return temp, nil
}

// linkTemp gives the synced file temp the name path, if that is free, and takes its own name away.
func linkTemp(d disk, temp, path string) error {
	if err := d.link(temp, path); err != nil {
		// Whoever took the name may not have synced the directory yet. Its file is whole all the same,
		// and a caller that builds on it with a name in this directory syncs both names at once.
		return errors.Join(err, d.remove(temp))
	}
	crash.At("durable.linked")
	// If we stop here, path may or may not survive a power cut; it is whole, and temp is left over.
	if err := d.remove(temp); err != nil {
		return err
	}
	crash.At("durable.temp-removed")
	// If we stop here, the same holds, and nothing is left over.
	return d.syncDir(filepath.Dir(path))
}

func mkdirAll(d disk, dir string) error {
	switch info, err := d.stat(dir); {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("create directory %s: a file has that name: %w", dir, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("create directory %s: %w", dir, err)
	}
	parent := filepath.Dir(dir)
	if err := mkdirAll(d, parent); err != nil {
		return err
	}
	// If we stop between here and the sync, a prefix of the path exists: the next call goes on from it.
	// A directory that another process made meanwhile is as good, but its name may be unsynced still.
	if err := d.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create directory %s: %w", dir, err)
	}
	crash.At("durable.directory-made")
	if err := d.syncDir(parent); err != nil {
		return fmt.Errorf("create directory %s: %w", dir, err)
	}
	return nil
}

// tempName is a name beside path that no other write uses.
func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+rand.Text())
}
