package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"watershed/internal/eventlog"
)

// publishEvery is the pause between two messages of a publisher.
const publishEvery = 120 * time.Millisecond

// A publisher publishes events of one type at a steady rate: new ones, late ones, some again that
// were published or imported before. It sends a message until it is acknowledged, under one id.
type publisher struct {
	url       string
	eventType string
	ledger    *ledger
	gen       *generator
	r         *rand.Rand

	recent []*event // published before

	turn sync.Mutex // held for a message; whoever takes it stops the publisher

	mu    sync.Mutex // guards what follows
	acked int        // messages
	seq   uint64     // of the last
	again int        // attempts that had to be repeated
}

func newPublisher(url, eventType string, seed uint64, l *ledger) *publisher {
	return &publisher{
		url: url, eventType: eventType, ledger: l,
		gen: newGenerator(seed, eventType), r: rand.New(rand.NewPCG(seed, 7)),
	}
}

func (p *publisher) run(ctx context.Context) error {
	var log *eventlog.Log
	for log == nil {
		var err error
		if log, err = eventlog.Open(ctx, eventlog.Config{URL: p.url, MaxBytes: logBytes}); err != nil {
			if pause(ctx, restartAfter) != nil {
				return nil
			}
		}
	}
	defer log.Close()
	for pause(ctx, publishEvery) == nil {
		p.turn.Lock()
		err := p.message(ctx, log)
		p.turn.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// message publishes one message. It returns an error only if the ledger cannot be written.
func (p *publisher) message(ctx context.Context, log *eventlog.Log) error {
	var payload bytes.Buffer
	var fresh []*event
	for range 3 + p.r.IntN(10) {
		e := p.gen.draw("log", "plain")
		fresh = append(fresh, e)
		payload.Write(e.line())
	}
	var copies []*again
	for range p.r.IntN(3) { // from near or from far
		if n := len(p.recent); n > 0 {
			copies = append(copies, p.ledger.copyOf(p.recent[p.r.IntN(n)]))
		}
	}
	if p.r.IntN(12) == 0 {
		if x := p.ledger.imported(p.eventType, p.r.IntN); x != nil {
			copies = append(copies, x)
		}
	}
	for _, x := range copies {
		payload.Write(x.event.line())
	}
	p.ledger.sending(p.eventType, len(fresh))
	id := fmt.Sprintf("%s-%d", p.eventType, p.gen.next)
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		seq, err := log.Publish(attempt, p.eventType, payload.Bytes(), id)
		cancel()
		if err == nil {
			p.ledger.arrived(copies)
			p.recent = append(p.recent, fresh...)
			p.mu.Lock()
			p.acked++
			p.seq = seq
			p.mu.Unlock()
			return p.ledger.acknowledged(message{Type: p.eventType, Seq: seq, Events: fresh})
		}
		p.mu.Lock()
		p.again++
		p.mu.Unlock()
		if pause(ctx, restartAfter) != nil {
			return nil
		}
	}
}

// count is the number of messages acknowledged and the sequence of the last.
func (p *publisher) count() (acked int, seq uint64, again int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked, p.seq, p.again
}
