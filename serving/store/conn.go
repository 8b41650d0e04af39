package store

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// A closed connection may take so long to end in order, and bring so many bytes on the way: the
// rest of an answer that nobody wants is cut off.
const (
	goodbye      = 100 * time.Millisecond
	goodbyeBytes = 64 << 10
)

// A dialer opens connections that end in order: closing one says that nothing more is sent, and
// throws away what still comes until the server closes too. Otherwise the driver, which closes a
// connection whenever a context ends, would reset it, and a server that is just reading from it
// takes a reset for a failure; ClickHouse's library even ends its whole process, seen in tests.
type dialer struct {
	net     net.Dialer
	closing sync.WaitGroup // connections that have not ended yet
}

func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := d.net.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	return &orderlyConn{TCPConn: tcp, closing: &d.closing}, nil
}

// wait returns when all connections have ended, after goodbye at the latest.
func (d *dialer) wait() { d.closing.Wait() }

type orderlyConn struct {
	*net.TCPConn
	closing *sync.WaitGroup
	once    sync.Once
}

// Close returns at once; the connection ends in the background.
func (c *orderlyConn) Close() error {
	c.once.Do(func() {
		_ = c.CloseWrite() // an error means that the connection is broken already
		_ = c.SetReadDeadline(time.Now().Add(goodbye))
		c.closing.Go(func() {
			_, _ = io.CopyN(io.Discard, c.TCPConn, goodbyeBytes)
			_ = c.TCPConn.Close()
		})
	})
	return nil
}
