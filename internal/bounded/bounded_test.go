package bounded_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"watershed/internal/bounded"
)

// A recorder is a test that writes down how it was failed.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func TestRun(t *testing.T) {
	f := func(name string, do func(), want string) {
		t.Helper()
		r := &recorder{TB: t}
		bounded.Run(r, do)
		got := strings.Join(r.failures, "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q; want %q", name, got, want)
		}
	}
	f("nothing", func() {}, "")
	f("too long", func() {
		for began := time.Now(); time.Since(began) < 3*bounded.MaxTime; {
		}
	}, "processors")
	var kept []byte
	f("too much at once", func() { kept = make([]byte, bounded.MaxMemory+1) }, "memory")
	f("too much in pieces", func() {
		for range 300 {
			kept = make([]byte, 1<<20)
		}
	}, "memory")
	_ = kept
}
