// Package bounded is a test helper: it holds code that reads what others wrote to what any input may
// cost. Fuzz targets run the code under test in it.
package bounded

import (
	"fmt"
	"os"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"
)

// What one input may cost, whatever it says.
const (
	maxTime   = slack * time.Second
	maxMemory = slack * 256 << 20 // bytes
)

// stuck ends the process if one input keeps it busy for so long. What would never return could not be
// reported otherwise; the fuzzing engine takes the end of its worker for a failure of that input.
const stuck = 30 * time.Second

// Run calls f and fails the test if f took more than 1 s or 256 MB (under the race detector ten times as much).
//
// Time fails only if both the clock and the process's processor time exceed it, so that a busy
// machine fails nobody. Memory is all that was allocated meanwhile, freed or not: more than was ever held
// at once, so that a small peak cannot hide a large one. A panic fails the test by itself.
func Run(t testing.TB, f func()) {
	t.Helper()
	run(t, maxTime, maxMemory, f)
}

func run(t testing.TB, maxTime time.Duration, maxMemory uint64, f func()) {
	t.Helper()
	watchdog := time.AfterFunc(stuck, func() {
		fmt.Fprintf(os.Stderr, "bounded: an input has kept %s busy for %s\n", t.Name(), stuck)
		os.Exit(3)
	})
	defer watchdog.Stop()
	memory, processor, began := allocated(), busy(), time.Now()
	f()
	clock, processor, memory := time.Since(began), busy()-processor, allocated()-memory
	if min(clock, processor) > maxTime {
		t.Errorf("the input took %s, %s of it on processors; want at most %s", clock, processor, maxTime)
	}
	if memory > maxMemory {
		t.Errorf("the input took %d bytes of memory; want at most %d", memory, maxMemory)
	}
}

// allocated is how many bytes the process has ever allocated.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// busy is the processor time that the process has used, all its threads together.
func busy() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the arguments are valid
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
