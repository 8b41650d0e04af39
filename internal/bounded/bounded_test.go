package bounded

import (
	"fmt"
	"strings"
	"testing"
	"time"
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
		run(r, 100*time.Millisecond, 32<<20, do)
		got := strings.Join(r.failures, "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q; want %q", name, got, want)
		}
	}
	f("nothing", func() {}, "")
	f("too long", func() {
		for began := busy(); busy()-began < 150*time.Millisecond; {
		}
	}, "processors")
	var kept []byte
	f("too much at once", func() { kept = make([]byte, 32<<20+1) }, "memory")
	f("too much in pieces", func() {
		for range 40 {
			kept = make([]byte, 1<<20)
		}
	}, "memory")
	_ = kept
}
