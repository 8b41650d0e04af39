package faultproxy

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// maxHeld is how many bytes of one direction the proxy takes in before it makes the sender wait.
const maxHeld = 64 << 20

// goodbye is how long a server may take to close a connection that was broken.
const goodbye = time.Second

// A conn is one client's connection. The proxy's mutex guards its fields.
type conn struct {
	p              *Proxy
	client, server *net.TCPConn
	fault          Fault
	broken         bool
	requests       stream
	answers        stream

	matched  *trigger // that this connection has met, until its turn has come
	tail     []byte   // of the requests: a match may come in two reads
	turn     int
	answered bool // since the client sent something last
}

// A stream is one direction of a connection.
type stream struct {
	buf   []byte // read and not yet written
	ended bool   // the sender has closed its side, or broke it
	moved *sync.Cond
}

func newConn(p *Proxy, client, server *net.TCPConn) *conn {
	c := &conn{p: p, client: client, server: server}
	c.requests.moved, c.answers.moved = sync.NewCond(&p.mu), sync.NewCond(&p.mu)
	return c
}

// run forwards until both directions have ended.
func (c *conn) run() {
	var wait sync.WaitGroup
	wait.Go(func() { c.read(c.client, &c.requests) })
	wait.Go(func() { c.read(c.server, &c.answers) })
	wait.Go(func() { c.write(c.server, &c.requests, HoldRequests) })
	wait.Go(func() { c.write(c.client, &c.answers, HoldAnswers) })
	wait.Wait()
	c.client.Close()
	c.server.Close()
}

// read takes in what a side sends.
func (c *conn) read(from *net.TCPConn, s *stream) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		c.p.mu.Lock()
		if s == &c.requests {
			c.request(b[:n])
		} else if n > 0 {
			c.answered = true
		}
		if !c.broken && (s != &c.answers || c.fault != DropAnswers) {
			s.buf = append(s.buf, b[:n]...)
		}
		s.ended = s.ended || err != nil
		s.moved.Broadcast()
		for len(s.buf) > maxHeld && !c.broken {
			s.moved.Wait()
		}
		c.p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// request looks for the bytes that a fault waits for.
func (c *conn) request(b []byte) {
	if len(b) == 0 {
		return
	}
	t := c.matched
	switch {
	case t == nil && c.p.once != nil:
		seen := append(c.tail, b...)
		if t = c.p.once; bytes.Contains(seen, []byte(t.match)) {
			c.matched, c.p.once, c.turn = t, nil, 0
		}
		c.tail = bytes.Clone(seen[max(0, len(seen)-len(t.match)+1):])
	case t != nil && c.answered:
		c.turn++
	}
	c.answered = false
	if t = c.matched; t != nil && c.turn >= t.turns {
		c.matched, c.tail = nil, nil
		c.set(t.fault)
		close(t.hit)
	}
}

// write sends on what was read, unless it is held.
func (c *conn) write(to *net.TCPConn, s *stream, held Fault) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for {
		for !c.broken && (c.fault == held || len(s.buf) == 0 && !s.ended) {
			s.moved.Wait()
		}
		if c.broken {
			return
		}
		if len(s.buf) == 0 {
			_ = to.CloseWrite() // if it is broken, its reader has seen that
			return
		}
		b := s.buf
		s.buf = nil
		s.moved.Broadcast()
		c.p.mu.Unlock()
		_, err := to.Write(b) // an error leaves a side without listeners: what comes goes nowhere
		c.p.mu.Lock()
		if err != nil {
			s.buf = nil
		}
	}
}

// set changes the fault of the connection.
func (c *conn) set(f Fault) {
	if c.fault = f; f == Refuse {
		c.reset()
	}
	if f == DropAnswers {
		c.answers.buf = nil
	}
	c.requests.moved.Broadcast()
	c.answers.moved.Broadcast()
}

// reset breaks the connection. The client sees a reset. The server sees an end, whatever it still
// sends is read for a moment: a reset in the middle of a packet ends ClickHouse's library, which
// stands for a server in tests, as a whole.
func (c *conn) reset() {
	if c.broken {
		return
	}
	c.broken = true
	abort(c.client)
	_ = c.server.CloseWrite() // it may be gone already
	_ = c.server.SetReadDeadline(time.Now().Add(goodbye))
	c.requests.moved.Broadcast()
	c.answers.moved.Broadcast()
}
