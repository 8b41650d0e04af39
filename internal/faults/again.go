package main

import (
	"slices"
	"time"
)

// An again is an event that was sent once more, after it had been published or imported. The speed
// layer knows those that were published within its horizon. It does not know the others: they count
// twice until the next build.
type again struct {
	event  *event
	of     int  // number of the import that brought it; notImported: it was published
	acked  bool // the log has it
	near   bool // the log had it first, and so shortly before that the speed layer knows
	healed bool // a build has been live since that was begun later
}

const notImported = -1

// imported draws an imported event that was not published yet; nil if there is none.
func (l *ledger) imported(eventType string, draw func(n int) int) *again {
	l.mu.Lock()
	defer l.mu.Unlock()
	files := l.imports[eventType]
	if len(files) == 0 {
		return nil
	}
	of := draw(len(files))
	if !files[of].done {
		return nil
	}
	for _, e := range files[of].events {
		if e.Kind == markKind || slices.ContainsFunc(l.copies, func(x *again) bool { return x.event == e }) {
			continue
		}
		x := &again{event: e, of: of}
		l.copies = append(l.copies, x)
		return x
	}
	return nil
}

// copyOf notes that a published event is being sent again.
func (l *ledger) copyOf(e *event) *again {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := &again{event: e, of: notImported}
	l.copies = append(l.copies, x)
	return x
}

// arrived notes that the log has copies. The log's own clock lies between what we see of both
// acknowledgements; half of the horizon is certainly within it.
func (l *ledger) arrived(copies []*again) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range copies {
		x.acked = true
		x.near = x.of == notImported && time.Since(x.event.acked) < l.horizon/2 && x.event.acked.After(l.anew)
	}
}

// healed notes that a build is live that was begun after everything sent so far had been archived.
func (l *ledger) healed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.copies {
		x.healed = x.healed || x.acked
	}
	l.waived = false
}

// doubtful is how many copies may count twice now. The mutex is held.
func (l *ledger) doubtful(eventType string) (n int64) {
	if l.waived {
		return 1 << 40
	}
	for _, x := range l.copies {
		if x.event.Type == eventType && !x.healed && !x.near {
			n++
		}
	}
	return n
}

// waive allows what was published again to show twice until the next build: the log is begun anew, and
// a worker can no longer read there which events came before.
func (l *ledger) waive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waived, l.anew = true, time.Now()
}

// forgive allows what builds have healed to show again, as long as an older build is live.
func (l *ledger) forgive(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waived = on
}

// mayDrop is by how much a total may go down with the next build.
func (l *ledger) mayDrop(eventType string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubtful(eventType)
}

// isWaived reports whether copies are not looked at until the next build.
func (l *ledger) isWaived() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waived
}
