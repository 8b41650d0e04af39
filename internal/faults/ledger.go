package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
)

// A ledger is the truth: what was sent, what the log acknowledged, what was imported. It is kept in
// memory and in a file, and recounts the views by itself: nothing of ours is asked.
type ledger struct {
	mu      sync.Mutex // guards all that follows
	file    *os.File
	sent    map[string]int // new events of a type whose publication has begun
	acked   []message
	echoes  []echo // published again, though they were imported
	imports map[string][]importFile
	waived  bool // the log was begun anew: what is there twice shows until the next build
}

// A message that the log acknowledged, with the new events in it.
type message struct {
	Type   string   `json:"type"`
	Seq    uint64   `json:"seq"`
	Events []*event `json:"events"`
}

// An importFile is one import: one mark and some other events. It is written down before it is tried;
// how many of them a build holds, its marks tell.
type importFile struct {
	events []*event
	done   bool // it has succeeded
}

// An echo is an event that was imported and then published too. The speed layer cannot know, so it
// counts twice from then until the next build.
type echo struct {
	event  *event
	of     int // number of the import
	sent   bool
	acked  bool
	healed bool // a build that has it was live
}

func newLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &ledger{file: f, sent: make(map[string]int), imports: make(map[string][]importFile)}, nil
}

func (l *ledger) sending(eventType string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[eventType] += n
}

// acknowledged writes a message down once the log has it.
func (l *ledger) acknowledged(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, m)
	_, err = l.file.Write(append(b, '\n'))
	return err
}

// importing writes an import down, and returns what to call when it has succeeded.
func (l *ledger) importing(eventType string, events []*event) (done func(), err error) {
	b, err := json.Marshal(map[string]any{"type": eventType, "import": events})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.imports[eventType])
	l.imports[eventType] = append(l.imports[eventType], importFile{events: events})
	_, err = l.file.Write(append(b, '\n'))
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.imports[eventType][i].done = true
	}, err
}

// marks is how many imports of a type a build must hold that was begun now.
func (l *ledger) marks(eventType string) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.imports[eventType] {
		if f.done {
			n++
		}
	}
	return n
}

// echo draws an imported event that was not published yet; nil if there is none.
func (l *ledger) echo(eventType string, draw func(n int) int) *event {
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
		if e.Kind == markKind || slices.ContainsFunc(l.echoes, func(x echo) bool { return x.event == e }) {
			continue
		}
		l.echoes = append(l.echoes, echo{event: e, of: of, sent: true})
		return e
	}
	return nil
}

func (l *ledger) echoed(e *event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.echoes {
		if l.echoes[i].event == e {
			l.echoes[i].acked = true
		}
	}
}

// healed notes that a build is live that was begun after everything sent so far had been archived.
func (l *ledger) healed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.echoes {
		l.echoes[i].healed = l.echoes[i].healed || l.echoes[i].acked
	}
	l.waived = false
}

// waive allows what was published again to show twice until the next build.
func (l *ledger) waive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waived = true
}

// ackedUpTo counts the new events of a type that the log acknowledged up to a sequence.
func (l *ledger) ackedUpTo(eventType string, seq uint64) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.acked {
		if m := &l.acked[i]; m.Type == eventType && m.Seq <= seq {
			n += int64(len(m.Events))
		}
	}
	return n
}

// bounds of the number of events that a view without filter may show: at least what was acknowledged
// up to seq and the first imports, at most that and all that was sent.
func (l *ledger) bounds(eventType string, seq uint64, marks int64) (least, most int64) {
	least = l.ackedUpTo(eventType, seq)
	l.mu.Lock()
	defer l.mu.Unlock()
	most = int64(l.sent[eventType])
	for i, f := range l.imports[eventType] {
		if int64(i) < marks {
			least += int64(len(f.events))
			most += int64(len(f.events))
		}
	}
	return least, most + l.doubtful(eventType)
}

// doubtful is how many echoes may count twice now.
func (l *ledger) doubtful(eventType string) (n int64) {
	if l.waived {
		return 1 << 40
	}
	for _, e := range l.echoes {
		if e.event.Type == eventType && !e.healed {
			n++
		}
	}
	return n
}

func (l *ledger) mayDrop(eventType string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubtful(eventType)
}

func (l *ledger) counts() (events, messages, echoes, imports int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.acked {
		events += len(m.Events)
	}
	for _, f := range l.imports {
		imports += len(f)
	}
	return events, len(l.acked), len(l.echoes), imports
}
