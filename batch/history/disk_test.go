package history

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of that many bytes. Where that is not allowed the result is empty, and the
// log says so.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := mountTmpfs(dir, size); err != nil {
		t.Logf("NOT TESTED HERE: a full disk needs root and tmpfs on Linux: %v (%s). internal/durable tests the same with an injected fault.", err, runtime.GOOS)
		return ""
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A full disk sets the types aside with an error that names the directory; nothing that is there is half;
// and as soon as there is room, everything is archived, exactly once.
func TestFullDisk(t *testing.T) {
	root := smallDisk(t, "400k")
	if root == "" {
		return
	}
	l := script(newRand(61), 30)
	whole := l.messages
	l.messages = whole[:l.cuts[0].Position.Seq]
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	ballast := fill(t, root)
	l.messages, l.wait = whole, true
	a := l.archiver(t, root)
	a.pause = quickPauses
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	eventually(t, "both types are set aside", func() bool {
		failing := a.Failing()
		return failing["a"] != nil && failing["b"] != nil
	})
	for name, err := range a.Failing() {
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), filepath.Join(root, name)) {
			t.Errorf("%s: got %v; want no space left, with the directory", name, err)
		}
	}
	if r, err := Verify(t.Context(), root); err != nil || len(r.Problems) != 0 {
		t.Errorf("on the full disk: %v, %v", r.Problems, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	last := l.cuts[len(l.cuts)-1]
	eventually(t, "everything is archived", func() bool {
		p := a.Positions()
		for _, ev := range definedBy(last) {
			if p[ev.Name] != last.Position {
				return false
			}
		}
		return len(a.Failing()) == 0
	})
	cancel()
	<-done
	l.check(t, root)
	if r, err := Verify(t.Context(), root); err != nil || len(r.Problems) != 0 {
		t.Errorf("after: %v, %v", r.Problems, err)
	}
}

// fill writes a file until nothing more fits, and returns its name.
func fill(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return name
}
