package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"watershed/schemas"
)

// These tests run a whole endpoint in a bubble whose clock goes on when all wait: over connections within the process,
// and of a view in which nothing changes unless they say so. The tests of package main follow real ones.

// pipes is a listener whose connections do not leave the process. What is not read there cannot be written here.
type pipes struct {
	calls chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.calls <- there:
		return here, nil
	case <-p.ended:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A still view stands at a position. Its queries never end by themselves.
type still struct {
	Catalog
	Reader
	Log
	at, states atomic.Uint64
	asked      chan struct{}
}

func (s *still) view() View {
	return View{Definition: &schemas.View{Name: "still"}, Plan: "plan"}
}

func (s *still) Views(context.Context) ([]View, error) { return []View{s.view()}, nil }

func (s *still) Live(context.Context) (schemas.Live, error) {
	return schemas.Live{Flip: 1, Build: 1}, nil
}

func (s *still) Reached(context.Context) (Reached, error) {
	return Reached{Live: schemas.Live{Flip: 1, Build: 1}, Plans: []Reach{{View: s.view(), Position: s.at.Load(), States: s.states.Load(), SpeedTable: "speed"}}}, nil
}

func (s *still) Query(ctx context.Context, _ Query) (Rows, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// A bubble is an endpoint that takes two tails.
type bubble struct {
	t       *testing.T
	view    *still
	pipes   *pipes
	client  *http.Client
	stop    func() // begins to shut down
	stopped chan error
}

// inBubble runs f with an endpoint, which must have ended within five seconds of stop.
func inBubble(t *testing.T, f func(b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := &pipes{calls: make(chan net.Conn), ended: make(chan struct{})}
		b := &bubble{t: t, view: &still{asked: make(chan struct{}, 1)}, pipes: p, stop: stop, stopped: make(chan error, 1),
			client: &http.Client{Transport: &http.Transport{DialContext: p.dial}}}
		b.view.at.Store(7)
		a, err := newAPI(Config{Tails: 2}, Deps{Reader: b.view, Catalog: b.view, Log: b.view})
		if err != nil {
			t.Fatal(err)
		}
		go func() { b.stopped <- a.serve(ctx, p) }()
		f(b)
		stop()
		began := time.Now()
		if err := <-b.stopped; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the endpoint took %s to end", took)
		}
		b.client.CloseIdleConnections()
	})
}

// tail opens a tail, which must be answered by that status.
func (b *bubble) tail(status int) (body *bufio.Reader, resp *http.Response, leave func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1/v1/views/still/tail", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err = b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != status {
		b.t.Errorf("status %d; want %d", resp.StatusCode, status)
	}
	return bufio.NewReader(resp.Body), resp, func() { cancel(); resp.Body.Close() }
}

// reads fails the test unless the text comes.
func (b *bubble) reads(from io.Reader, want string) {
	b.t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
		b.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

const opened = "retry: 1000\nid: 7.1\n\n"

// TestTailsBeat: a tail without changes has a comment every 15 seconds, far beyond the server's limits for requests.
func TestTailsBeat(t *testing.T) {
	inBubble(t, func(b *bubble) {
		body, _, leave := b.tail(http.StatusOK)
		defer leave()
		b.reads(body, opened)
		began := time.Now()
		for n := range 40 {
			b.reads(body, ":\n\n")
			if passed := time.Since(began); passed != time.Duration(n+1)*15*time.Second {
				t.Fatalf("beat %d came after %s", n+1, passed)
			}
		}
	})
}

// TestTailsGiveBackTheirPlaces: no more are open at once than may be, and whoever goes away, or does not read what is
// sent for half a minute, makes room for another.
func TestTailsGiveBackTheirPlaces(t *testing.T) {
	inBubble(t, func(b *bubble) {
		body, _, first := b.tail(http.StatusOK)
		b.reads(body, opened)
		// One more, who reads nothing of its answer.
		deaf, err := b.pipes.dial(b.t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer deaf.Close()
		if _, err := io.WriteString(deaf, "GET /v1/views/still/tail HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, resp, leave := b.tail(http.StatusTooManyRequests)
		if got := resp.Header.Get("Retry-After"); got != "1" {
			t.Errorf("Retry-After %q; want 1", got)
		}
		leave()
		first()
		synctest.Wait()
		_, _, second := b.tail(http.StatusOK)
		_, _, leave = b.tail(http.StatusTooManyRequests)
		leave()
		time.Sleep(tailPatience) // of the bubble
		synctest.Wait()
		_, _, third := b.tail(http.StatusOK)
		second()
		third()
	})
}

// TestTailsEndAtShutdown: those that wait for a change, for a query, and for a client that does not read.
func TestTailsEndAtShutdown(t *testing.T) {
	inBubble(t, func(b *bubble) {
		body, _, _ := b.tail(http.StatusOK)
		b.reads(body, opened)
		b.view.at.Store(8)
		b.view.states.Store(8)
		<-b.view.asked
		b.stop()
		if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
			t.Errorf("got %q, %v; want the end", rest, err)
		}
	})
	inBubble(t, func(b *bubble) {
		deaf, err := b.pipes.dial(b.t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer deaf.Close()
		if _, err := io.WriteString(deaf, "GET /v1/views/still/tail HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	})
}
