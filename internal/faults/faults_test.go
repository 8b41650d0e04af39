package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFaults is the short form: twenty random faults with pauses of a second or two, and a death at every
// crash place. It runs the program, so that NATS and the recount do not bear the race detector, which has
// nothing to find in processes that are killed.
func TestFaults(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-tags", "crash", "-o", dir, "watershed/cmd/watershed", "watershed/internal/faults")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	run := exec.CommandContext(t.Context(), filepath.Join(dir, "faults"), "-n", "20", "-short", "-bin", filepath.Join(dir, "watershed"))
	run.Stdout, run.Stderr = t.Output(), t.Output()
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it takes its disks with it
	run.Cancel = func() error { return run.Process.Signal(syscall.SIGTERM) }
	run.WaitDelay = 30 * time.Second
	if err := run.Run(); err != nil {
		t.Error(err)
	}
}
