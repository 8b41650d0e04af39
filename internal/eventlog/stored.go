package eventlog

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Where hints go, with the stream's name behind: that something was stored, and that somebody waits for it. No stream
// keeps them.
const (
	storedSubject = "watershed.stored."
	wantedSubject = "watershed.wanted."
)

// Stored gives all who asked by OnStored, in whichever process, a hint that something of the log was stored. It does
// not wait, and a hint that is lost is no error: nothing may rest on it. It stops where the server does not
// permit it.
func (l *Log) Stored() { l.hint(storedSubject) }

// OnStored has f called at each hint, by one goroutine, until stop. f must not block.
func (l *Log) OnStored(f func()) (stop func(), err error) { return l.onHint(storedSubject, f) }

// Wanted is a hint likewise, for the speed worker, that somebody waits until positions are stored.
func (l *Log) Wanted() { l.hint(wantedSubject) }

// OnWanted is what OnStored is, for Wanted.
func (l *Log) OnWanted(f func()) (stop func(), err error) { return l.onHint(wantedSubject, f) }

func (l *Log) hint(subject string) {
	if errors.Is(l.conn.LastError(), nats.ErrPermissionViolation) {
		return
	}
	_ = l.conn.Publish(subject+l.cfg.Stream, nil)
}

func (l *Log) onHint(subject string, f func()) (stop func(), err error) {
	sub, err := l.conn.Subscribe(subject+l.cfg.Stream, func(*nats.Msg) { f() })
	if err != nil {
		return nil, fmt.Errorf("log %s: listen for hints: %w", l.cfg.Stream, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // it ends with the connection too
}
