// Package faultproxy is a TCP proxy for tests that goes wrong on demand, as networks do: bytes come
// late, answers are lost after the server has acted, connections break.
//
// What a client has sent is never taken back: bytes that are held reach the server when they are let
// go, even if the client is long gone. That is the delayed write that a fence is for.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// A Fault is what the proxy does to a connection.
type Fault int

const (
	Pass         Fault = iota // all bytes pass; what was held goes on its way
	HoldRequests              // the client's bytes wait in the proxy
	HoldAnswers               // the server's bytes wait in the proxy
	DropAnswers               // the server's bytes are thrown away: Reset makes the outcome unknown to the client
	Refuse                    // connections are reset, new ones at once
)

// String is the fault's name.
func (f Fault) String() string {
	return [...]string{"pass", "hold requests", "hold answers", "drop answers", "refuse"}[f]
}

// A Proxy forwards connections to one server.
type Proxy struct {
	target string
	listen net.Listener
	ctx    context.Context // of all that runs; ends with Close
	cancel context.CancelFunc
	wait   sync.WaitGroup // for the listener and all connections

	mu    sync.Mutex // guards all that follows, and the connections
	fault Fault      // of new connections
	conns map[*conn]struct{}
	once  *trigger
}

// A trigger is a fault that waits for a request.
type trigger struct {
	match string
	turns int
	fault Fault
	hit   chan struct{}
}

// New listens on a free port of the loopback interface and forwards to target. Close ends it.
func New(target string) (*Proxy, error) {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", target, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{target: target, listen: listen, ctx: ctx, cancel: cancel, conns: make(map[*conn]struct{})}
	p.wait.Go(p.accept)
	return p, nil
}

// Addr is where clients connect to.
func (p *Proxy) Addr() string { return p.listen.Addr().String() }

// Set makes f the fault of all connections, those that are open and those that come.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	for c := range p.conns {
		c.set(f)
	}
}

// Once makes f the fault of the one connection whose client next sends bytes with match in them, and
// closes the channel when it has. It begins with those bytes if turns is 0; if it is n, with the first
// bytes that the client sends after it was answered n times: of an insert into ClickHouse, which asks
// for the table's columns before it sends a block, the block is turn 1. There is one Once at a time.
func (p *Proxy) Once(match string, turns int, f Fault) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.once = &trigger{match: match, turns: turns, fault: f, hit: make(chan struct{})}
	return p.once.hit
}

// Reset breaks all open connections: clients see a reset, the server sees that they have ended, and
// what was held or is under way is lost. The fault of new connections stays.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.reset()
	}
}

// Open is the number of connections.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Close resets all connections and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() error {
	p.cancel()
	err := p.listen.Close()
	p.Reset()
	p.wait.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client has gone again
		}
		p.wait.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	var d net.Dialer
	server, err := d.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		abort(client)
		return
	}
	c := newConn(p, client, server.(*net.TCPConn))
	p.mu.Lock()
	p.conns[c] = struct{}{}
	c.set(p.fault)
	if p.ctx.Err() != nil {
		c.reset()
	}
	p.mu.Unlock()
	c.run()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// abort closes a connection by a reset.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close() // nobody waits for its error
}
