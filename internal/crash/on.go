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

var place, nth = parse(os.Getenv(Variable))

var reached atomic.Int64 // how often the place was reached

func parse(s string) (string, int64) {
	name, count, _ := strings.Cut(s, "#")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		n = 1
	}
	return name, n
}

// At kills the process if this is where it is to die. Nothing is flushed, no deferred call runs.
func At(name string) {
	if name != place || reached.Add(1) != nth {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal may take a moment
}
