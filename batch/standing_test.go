package batch

import (
	"strings"
	"testing"
	"time"

	"watershed/schemas"
	"watershed/schemas/view"
)

// The audit waits for plans that get on, however slowly, and not for one that stands still while others
// are past the cut.
func TestAuditDoesNotWaitForAStalledPlan(t *testing.T) {
	begin := time.Unix(1_000_000_000, 0)
	mark := func(epoch, seq uint64) schemas.Mark {
		return schemas.Mark{Epoch: epoch, Position: schemas.Position{Seq: seq, Hash: seq}}
	}
	const cut = 7
	steps := func(name string, slow func(second int) schemas.Mark, fast schemas.Mark, wantWaits int, wantWhy string) {
		t.Helper()
		s := newStanding(cut, []*view.Plan{{Hash: "slow"}, {Hash: "fast"}})
		for second := 0; ; second++ {
			why, waits := s.look(map[string]schemas.Mark{"slow": slow(second), "fast": fast}, begin.Add(time.Duration(second)*time.Second))
			if waits && second < 60 {
				continue
			}
			if second != wantWaits || !strings.Contains(why["slow"], wantWhy) || wantWhy == "" && why["slow"] != "" {
				t.Errorf("%s: waited %d s, %q; want %d s, %q", name, second, why["slow"], wantWaits, wantWhy)
			}
			return
		}
	}
	stalled := int(stalledAfter / time.Second)
	still := func(int) schemas.Mark { return mark(6, 10) }
	steps("both are past it", func(int) schemas.Mark { return mark(cut, 20) }, mark(cut, 20), 0, "")
	steps("one stands still", still, mark(cut, 20), stalled, "stood still with it at position 10")
	steps("all stand still", still, mark(6, 10), 60, "has not passed cut 7 within 1m0s")
	steps("one gets on slowly", func(n int) schemas.Mark {
		if n < 40 {
			return mark(6, uint64(n/(stalled-1)))
		}
		return mark(cut, 20)
	}, mark(cut, 20), 40, "")
	steps("one that never had a position", func(int) schemas.Mark { return schemas.Mark{} }, mark(cut, 20), stalled, "stood still")

	s := newStanding(cut, []*view.Plan{{Hash: "slow"}})
	if why, waits := s.look(nil, begin); waits || why["slow"] != "no speed layer has ever run" {
		t.Errorf("without a speed layer: waits %t, %q", waits, why["slow"])
	}
}
