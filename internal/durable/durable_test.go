package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// faulty is the real disk with a fault at one step: it fails without effect, or with its effect.
type faulty struct {
	osDisk
	steps    []string // what was asked, in order
	at       int      // the step that fails; -1: none
	persists bool     // the failing step has its effect all the same
}

var errFault = errors.New("injected fault")

func (d *faulty) step(name string, do func() error) error {
	d.steps = append(d.steps, name)
	if len(d.steps)-1 != d.at {
		return do()
	}
	if d.persists {
		if err := do(); err != nil {
			return err
		}
	}
	return errFault
}

func (d *faulty) create(path string, mode fs.FileMode) (h handle, err error) {
	err = d.step("create", func() error { h, err = d.osDisk.create(path, mode); return err })
	if err != nil {
		return nil, err
	}
	return faultyHandle{h, d}, nil
}

func (d *faulty) rename(from, to string) error {
	return d.step("rename", func() error { return d.osDisk.rename(from, to) })
}

func (d *faulty) link(from, to string) error {
	return d.step("link", func() error { return d.osDisk.link(from, to) })
}

func (d *faulty) remove(path string) error {
	return d.step("remove", func() error { return d.osDisk.remove(path) })
}

func (d *faulty) mkdir(path string) error {
	return d.step("mkdir "+filepath.Base(path), func() error { return d.osDisk.mkdir(path) })
}

func (d *faulty) syncDir(dir string) error {
	return d.step("sync directory", func() error { return d.osDisk.syncDir(dir) })
}

type faultyHandle struct {
	handle
	disk *faulty
}

func (h faultyHandle) Write(p []byte) (n int, err error) {
	err = h.disk.step("write", func() error { n, err = h.handle.Write(p); return err })
	return n, err
}

func (h faultyHandle) Sync() error { return h.disk.step("sync", h.handle.Sync) }

// Close always closes, so that a fault leaks nothing.
func (h faultyHandle) Close() error {
	return errors.Join(h.disk.step("close", func() error { return nil }), h.handle.Close())
}

const (
	oldContent = "old"
	newContent = "the new content"
)

// writes are the ways to give a file its name, and the steps each takes on a free name.
var writes = map[string]struct {
	do        func(d disk, path string) error
	overwrite bool
	steps     string
}{
	"WriteFile": {
		func(d disk, path string) error { return replace(d, path, []byte(newContent), publicMode) },
		true, "create, write, sync, close, rename, sync directory",
	},
	"PutIfAbsent": {
		func(d disk, path string) error { return putIfAbsent(d, path, []byte(newContent)) },
		false, "create, write, sync, close, link, remove, sync directory",
	},
	"File": {
		func(d disk, path string) error {
			f, err := create(d, path)
			if err != nil {
				return err
			}
			defer f.Abort()
			if _, err := f.Write([]byte(newContent)); err != nil {
				return err
			}
			return f.Commit()
		},
		false, "create, write, sync, close, link, remove, sync directory",
	},
}

func TestStepsAreInOrder(t *testing.T) {
	for name, w := range writes {
		d := &faulty{at: -1}
		path := filepath.Join(t.TempDir(), "f")
		if err := w.do(d, path); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := strings.Join(d.steps, ", "); got != w.steps {
			t.Errorf("%s: got %s; want %s", name, got, w.steps)
		}
		if got := read(t, path); got != newContent {
			t.Errorf("%s: got %q; want %q", name, got, newContent)
		}
		if names := list(t, path); len(names) != 1 {
			t.Errorf("%s: left over: %v", name, names)
		}
	}
}

// Whatever step fails, with or without effect, on a free or a taken name: the error is reported, the
// name has the old content or the whole new one, and a retry on a free name or of an overwrite works.
func TestFaultAtEveryStep(t *testing.T) {
	for name, w := range writes {
		for at := range strings.Split(w.steps, ", ") {
			for _, persists := range []bool{false, true} {
				for _, taken := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%d/persists=%v/taken=%v", name, at, persists, taken), func(t *testing.T) {
						path := filepath.Join(t.TempDir(), "f")
						if taken {
							if err := os.WriteFile(path, []byte(oldContent), 0o644); err != nil {
								t.Fatal(err)
							}
						}
						d := &faulty{at: at, persists: persists}
						err := w.do(d, path)
						if err == nil {
							t.Fatal("got nil; want an error")
						}
						got := read(t, path)
						switch {
						case got == newContent && (w.overwrite || !taken):
						case got == oldContent && taken, got == "" && !taken:
						default:
							t.Errorf("content after %v: got %q", err, got)
						}
						if taken && !w.overwrite {
							return
						}
						if err := w.do(osDisk{}, path); err != nil && !errors.Is(err, fs.ErrExist) {
							t.Errorf("retry: %v", err)
						}
						if got := read(t, path); got != newContent {
							t.Errorf("content after the retry: got %q; want %q", got, newContent)
						}
						for _, other := range list(t, path) {
							if other != "f" && !IsTemp(other) {
								t.Errorf("left over: %s", other)
							}
						}
					})
				}
			}
		}
	}
}

func TestATakenNameIsErrExistAndLeavesNothing(t *testing.T) {
	for _, name := range []string{"PutIfAbsent", "File"} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(oldContent), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := writes[name].do(osDisk{}, path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: got %v; want fs.ErrExist", name, err)
		}
		if got := read(t, path); got != oldContent {
			t.Errorf("%s: got %q; want %q", name, got, oldContent)
		}
		if names := list(t, path); len(names) != 1 {
			t.Errorf("%s: left over: %v", name, names)
		}
	}
}

func TestOneOfManyPutsWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	errs := make([]error, 16)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { errs[i] = PutIfAbsent(path, fmt.Appendf(nil, "%d", i)) })
	}
	group.Wait()
	winners := 0
	for i, err := range errs {
		switch {
		case err == nil:
			winners++
			if got, want := read(t, path), fmt.Sprint(i); got != want {
				t.Errorf("content: got %q; want the winner's %q", got, want)
			}
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("put %d: %v", i, err)
		}
	}
	if winners != 1 {
		t.Errorf("winners: got %d; want 1", winners)
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Abort(); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.Write(nil); !errors.Is(err, errFinished) {
		t.Errorf("Write after Abort: got %v", err)
	}
	if err := f.Commit(); !errors.Is(err, errFinished) {
		t.Errorf("Commit after Abort: got %v", err)
	}
	if names := list(t, path); len(names) != 0 {
		t.Errorf("left over: %v", names)
	}
}

func TestWriteSecretIsForTheOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteSecret(path, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != secretMode {
		t.Errorf("mode: got %v; want %v", info.Mode(), secretMode)
	}
}

func TestMkdirAll(t *testing.T) {
	root := t.TempDir()
	const want = "mkdir a, sync directory, mkdir b, sync directory"
	for at := range strings.Split(want, ", ") {
		d := &faulty{at: at}
		dir := filepath.Join(root, fmt.Sprint(at))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := mkdirAll(d, filepath.Join(dir, "a", "b")); !errors.Is(err, errFault) {
			t.Errorf("fault at %d: got %v", at, err)
		}
		if err := MkdirAll(filepath.Join(dir, "a", "b")); err != nil {
			t.Errorf("after a fault at %d: %v", at, err)
		}
	}
	d := &faulty{at: -1}
	if err := mkdirAll(d, filepath.Join(root, "a", "b")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(d.steps, ", "); got != want {
		t.Errorf("steps: got %s; want %s", got, want)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"file", "file/below"} {
		if err := MkdirAll(filepath.Join(root, path)); err == nil {
			t.Errorf("MkdirAll(%s): got nil; want an error", path)
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(dir)
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("second lock: got %v; want a LockedError", err)
	}
	if locked.Holder.PID != os.Getpid() || locked.Holder.Since.IsZero() {
		t.Errorf("holder: got %+v; want this process", locked.Holder)
	}
	if want := fmt.Sprint(os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("message %q does not name process %s", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Lock(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lock of a missing directory: got %v; want fs.ErrNotExist", err)
	}
}

// read returns the empty string for a missing file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func list(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestReplaceAndSetAside(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	for name, text := range map[string]string{path: oldContent, other: newContent} {
		if err := WriteFile(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Replace(other, path); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != newContent || read(t, other) != "" {
		t.Errorf("after Replace: got %q; want %q under one name", got, newContent)
	}
	temp, err := SetAside(path)
	if err != nil {
		t.Fatal(err)
	}
	if !IsTemp(filepath.Base(temp)) || read(t, temp) != newContent || read(t, path) != "" {
		t.Errorf("after SetAside: %s has %q, %s %q", temp, read(t, temp), path, read(t, path))
	}
	if _, err := SetAside(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file set aside: got %v; want fs.ErrNotExist", err)
	}
	if err := Replace(other, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file as the replacement: got %v; want fs.ErrNotExist", err)
	}
}
