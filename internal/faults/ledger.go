package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// A ledger is the truth: what was sent, what the log acknowledged, what was imported. It is kept in
// memory and in a file, and recounts the views by itself: nothing of ours is asked.
type ledger struct {
	horizon time.Duration // stretch of log in which the speed layer finds duplicates

	mu      sync.Mutex // guards all that follows
	file    *os.File
	sent    map[string]int // new events of a type whose publication has begun
	acked   []message
	counted *counter // of acked, up to upTo
	upTo    int
	copies  []*again // what was sent once more
	imports map[string][]importFile
	anew    time.Time // when the log was begun anew; zero: never
	waived  bool      // the log was begun anew: what is there twice shows until the next build
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

func newLedger(path string, horizon time.Duration) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &ledger{file: f, horizon: horizon, sent: make(map[string]int), imports: make(map[string][]importFile)}, nil
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
	for _, e := range m.Events {
		e.acked = time.Now()
	}
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

func (l *ledger) counts() (events, messages, copies, imports int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.acked {
		events += len(m.Events)
	}
	for _, f := range l.imports {
		imports += len(f)
	}
	return events, len(l.acked), len(l.copies), imports
}
