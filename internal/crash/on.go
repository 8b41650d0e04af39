//go:build crash

package crash

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Variable is the environment variable that says where to die.
const Variable = "WATERSHED_CRASH"

// armed counts down, by place, how often it is still to be reached.
var armed = parse(os.Getenv(Variable))

func parse(s string) map[string]*atomic.Int64 {
	places := make(map[string]*atomic.Int64)
	for spec := range strings.SplitSeq(s, ",") {
		name, count, _ := strings.Cut(spec, "#")
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil {
			n = 1
		}
		places[name] = new(atomic.Int64)
		places[name].Store(n)
	}
	return places
}

// At kills the process if this is where it is to die, and says so. Nothing is flushed, no deferred call runs.
func At(name string) {
	left := armed[name]
	if left == nil || left.Add(-1) != 0 {
		return
	}
	_, _ = os.Stderr.WriteString("crash: " + name + "\n") // who listens is told
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal may take a moment
}
