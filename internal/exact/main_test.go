// Package exact holds the pipeline against an independent recount: whatever the order, the
// cuts, the restarts and the duplicates, the answers are those of one pass over all events.
package exact

import (
	"flag"
	"testing"
	"time"

	"watershed/internal/devserver/devtest"
)

var (
	seedFlag = flag.Uint64("seed", 0, "repeat the run of this seed; 0: new seeds")
	runsFlag = flag.Int("runs", 2, "runs, each with a seed of its own; -runs 40 takes some ten minutes")
)

// patience bounds each wait, on a machine on which many packages are tested at once.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	devtest.Main(m)
}
