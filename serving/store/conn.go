package store

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// A connection that is closed may take so long to end in order, and bring so many bytes on the
// way: the rest of an answer that nobody wants is cut off.
const (
	goodbye      = 100 * time.Millisecond
	goodbyeBytes = 64 << 10
)

// dial opens a connection that ends in order: closing it says that nothing more is sent, and
// throws away what still comes until the server closes too. Otherwise the driver, which closes a
// connection whenever a context ends, would reset it, and a server that is just reading from it
// takes a reset for a failure; ClickHouse's library even ends its whole process, seen in tests.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	return &orderlyConn{TCPConn: tcp}, nil
}

type orderlyConn struct {
	*net.TCPConn
	once sync.Once
}

// Close returns when the server has closed its side, or soon after.
func (c *orderlyConn) Close() (err error) {
	c.once.Do(func() {
		// An error of these means that the connection is broken already.
		_ = c.CloseWrite()
		// Not by a deadline: whoever is reading from the connection may set another one.
		cut := time.AfterFunc(goodbye, func() { _ = c.TCPConn.Close() })
		_, _ = io.CopyN(io.Discard, c.TCPConn, goodbyeBytes)
		if cut.Stop() {
			err = c.TCPConn.Close()
		}
	})
	return err
}

// isSilent reports, without waiting, that a connection is open and has nothing to read, and that
// its last deadline to read by has not passed.
func isSilent(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	err = raw.Read(func(fd uintptr) bool {
		_, err := syscall.Read(int(fd), make([]byte, 1))
		silent = err == syscall.EAGAIN
		return true
	})
	return err == nil && silent
}
