package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"watershed/internal/ingest"
)

var errGone = errors.New("the client has gone away")

// TestClientsThatGoAwayWithinABody: nothing of what came is published, and their memory is free for others. There are
// more of them than would fit at once.
func TestClientsThatGoAwayWithinABody(t *testing.T) {
	const memory, claimed = 4 << 20, 700 << 10
	w := open(t, ingest.Config{MaxWire: 1 << 20, MaxBody: 1 << 20, Memory: memory})
	text := lines(0, 5000)
	stream := arrowStream(t, hit(), text, 1000)
	for i := range 10 * memory / claimed {
		r := request("", [][]string{{ndjson}, {ndjson, "Content-Encoding: gzip"}, {ndjson, "Content-Encoding: zstd"}, {arrow}, {"Idempotency-Key: k"}}[i%5]...)
		body := [...]string{text, gzipped(t, strings.NewReader(text)), zstandard(t, strings.NewReader(text)), stream, text}[i%5]
		r.Body = io.MultiReader(strings.NewReader(body[:len(body)*i%len(body)]), iotest.ErrReader(errGone))
		r.Partial, r.Length = i%2 == 0, claimed
		if got, err := w.Accept(w.ctx, r); !errors.Is(err, errGone) || got.Accepted > 0 {
			t.Errorf("got %+v, %v; want that the client has gone", got, err)
		}
	}
	w.holds(t, 0, 0)
	r := request(lines(0, 10))
	r.Length = 1 << 20
	w.accept(t, r)
	w.holds(t, 0, 10)
}

// TestClientsThatGoAwayWhileTheyWait sends requests at once whose clients go away at some moment: each is in the log
// wholly or not at all, wholly if it was answered, and those who stay are not disturbed.
func TestClientsThatGoAwayWhileTheyWait(t *testing.T) {
	w := open(t, ingest.Config{MaxWire: 2 << 20, MaxBody: 2 << 20, Memory: 64 << 20})
	const clients = 300
	rnd := rand.New(rand.NewPCG(3, 4))
	type client struct {
		first, events int
		stays         bool
		err           error
	}
	all := make([]client, clients)
	var wait sync.WaitGroup
	next := 0
	for i := range all {
		c := &all[i]
		*c = client{first: next, events: 1 + rnd.IntN(20), stays: i%3 == 0}
		if i%50 == 7 {
			c.events = 15_000 // several messages
		}
		next += c.events
		var headers []string
		if i%4 == 1 {
			headers = []string{fmt.Sprint("Idempotency-Key: ", i)}
		}
		r := request(lines(c.first, next), headers...)
		ctx, leave := context.WithCancel(w.ctx)
		if !c.stays {
			r.Body = &leaver{from: r.Body, leave: leave}
		}
		wait.Go(func() {
			defer leave()
			_, c.err = w.Accept(ctx, r)
		})
	}
	wait.Wait()
	times, _ := w.logged(t)
	for _, c := range all {
		logged := 0
		for id := c.first; id < c.first+c.events; id++ {
			logged += times[int64(id)]
		}
		switch {
		case c.err == nil && logged != c.events, c.err != nil && logged != 0 && logged != c.events:
			t.Errorf("%d of %d events are in the log after %v", logged, c.events, c.err)
		case c.err != nil && (c.stays || !errors.Is(c.err, context.Canceled)):
			t.Errorf("a client that stays: %t, has %v", c.stays, c.err)
		}
	}
	w.accept(t, request(lines(next, next+10)))
}

// A leaver is a body whose client goes away when it has sent all of it.
type leaver struct {
	from  io.Reader
	leave func()
}

func (l *leaver) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	if err == io.EOF {
		l.leave()
	}
	return n, err
}
