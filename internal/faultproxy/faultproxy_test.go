package faultproxy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"watershed/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// A server answers each line by "did <line>", and keeps what it did.
type server struct {
	net.Listener
	wait sync.WaitGroup
	did  chan string
}

func newServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &server{Listener: l, did: make(chan string, 100)}
	s.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					s.did <- lines.Text()
					if _, err := io.WriteString(c, "did "+lines.Text()+"\n"); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.wait.Wait()
	})
	return s
}

func (s *server) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-s.did:
		return line
	case <-time.After(patience):
		t.Fatal("the server has got nothing")
		return ""
	}
}

func newProxy(t *testing.T, s *server) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.New(s.Addr().String())
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	return p
}

type client struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, p *faultproxy.Proxy) client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	check(t, err)
	t.Cleanup(func() { c.Close() })
	check(t, c.SetDeadline(time.Now().Add(patience)))
	return client{c, bufio.NewReader(c)}
}

func (c client) send(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(c, line+"\n")
	check(t, err)
}

func (c client) answer(t *testing.T) string {
	t.Helper()
	line, err := c.lines.ReadString('\n')
	check(t, err)
	return strings.TrimSpace(line)
}

func (c client) isReset(t *testing.T) {
	t.Helper()
	if _, err := c.lines.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v; want a reset", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("got %q; want %q", got, want)
	}
}

func TestPass(t *testing.T) {
	s := newServer(t)
	c := dial(t, newProxy(t, s))
	c.send(t, "a")
	equal(t, c.answer(t), "did a")
	check(t, c.Conn.(*net.TCPConn).CloseWrite())
	if _, err := c.lines.ReadByte(); err != io.EOF {
		t.Errorf("got %v; want the end", err)
	}
}

// What is held comes when it is let go, though its client is gone.
func TestHeldRequestOutlivesItsClient(t *testing.T) {
	s := newServer(t)
	p := newProxy(t, s)
	c := dial(t, p)
	hit := p.Once("two", 0, faultproxy.HoldRequests)
	c.send(t, "one")
	equal(t, c.answer(t), "did one")
	c.send(t, "two")
	<-hit
	check(t, c.Close())
	other := dial(t, p) // is not held
	other.send(t, "three")
	equal(t, other.answer(t), "did three")
	equal(t, s.next(t), "one")
	equal(t, s.next(t), "three")
	p.Set(faultproxy.Pass)
	equal(t, s.next(t), "two")
}

func TestHoldAnswers(t *testing.T) {
	s := newServer(t)
	p := newProxy(t, s)
	c := dial(t, p)
	p.Set(faultproxy.HoldAnswers)
	c.send(t, "a")
	equal(t, s.next(t), "a")
	check(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	if _, err := c.lines.Peek(1); err == nil {
		t.Error("the answer was not held")
	}
	check(t, c.SetReadDeadline(time.Now().Add(patience)))
	p.Set(faultproxy.Pass)
	equal(t, c.answer(t), "did a")
}

// The server acts, and the client does not get to know. The fault begins at the client's second
// turn, as with an insert that asks before it sends.
func TestDropAnswersFromATurnOn(t *testing.T) {
	s := newServer(t)
	p := newProxy(t, s)
	c := dial(t, p)
	hit := p.Once("insert", 1, faultproxy.DropAnswers)
	c.send(t, "insert")
	equal(t, c.answer(t), "did insert")
	c.send(t, "block")
	<-hit
	equal(t, s.next(t), "insert")
	equal(t, s.next(t), "block")
	p.Reset()
	c.isReset(t)
}

func TestRefuse(t *testing.T) {
	s := newServer(t)
	p := newProxy(t, s)
	c := dial(t, p)
	c.send(t, "a")
	equal(t, c.answer(t), "did a")
	p.Set(faultproxy.Refuse)
	c.isReset(t)
	if d, err := net.Dial("tcp", p.Addr()); err == nil { // it may be reset before it is set up
		client{d, bufio.NewReader(d)}.isReset(t)
		d.Close()
	}
	p.Set(faultproxy.Pass)
	c = dial(t, p)
	c.send(t, "b")
	equal(t, c.answer(t), "did b")
}
