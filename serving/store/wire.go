package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
)

// A wire is a connection of ClickHouse's native protocol on which blocks are inserted, one after
// the other. It says one thing at a time: a statement, and when ClickHouse has taken that, a
// block. A connection that failed, or whose insert was given up, says nothing more: what was cut
// off in the middle can never become a whole block.
type wire struct {
	conn    net.Conn
	in      *proto.Reader
	out     *proto.Writer
	version int
}

// answerTimeout is how long ClickHouse may be silent before an insert has failed.
const answerTimeout = 10 * time.Minute

// wires keeps connections for later.
type wires struct {
	hello proto.ClientHello
	addr  string

	mu     sync.Mutex // of what follows
	idle   []*wire    // the last used is the last
	closed bool
}

// maxIdleWires are kept: more than one for each writer would only grow old.
const maxIdleWires = 16

func newWires(addr, user, password string) *wires {
	return &wires{addr: addr, hello: proto.ClientHello{
		Name: "watershed", ProtocolVersion: proto.Version, User: user, Password: password,
	}}
}

// take gives a connection that nobody else has.
func (p *wires) take(ctx context.Context) (*wire, error) {
	for {
		p.mu.Lock()
		var w *wire
		if n := len(p.idle); n > 0 {
			w, p.idle = p.idle[n-1], p.idle[:n-1]
		}
		p.mu.Unlock()
		if w == nil {
			return p.dial(ctx)
		}
		if isSilent(w.conn) {
			return w, nil
		}
		_ = w.conn.Close() // it has ended while it was kept
	}
}

// put takes back a connection; sound says that its insert has ended in order.
func (p *wires) put(w *wire, sound bool) {
	p.mu.Lock()
	keep := sound && !p.closed && len(p.idle) < maxIdleWires
	if keep {
		p.idle = append(p.idle, w)
	}
	p.mu.Unlock()
	if !keep {
		_ = w.conn.Close() // nothing of ours is on it
	}
}

// close ends the connections that nobody has, and those in use when they come back.
func (p *wires) close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, w := range idle {
		errs = append(errs, w.conn.Close())
	}
	return errors.Join(errs...)
}

func (p *wires) dial(ctx context.Context) (*wire, error) {
	conn, err := dial(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, in: proto.NewReader(conn), out: proto.NewWriter(conn, new(proto.Buffer)), version: p.hello.ProtocolVersion}
	if err := w.during(ctx, func() error { return w.greet(p.hello) }); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return w, nil
}

// greet says who we are, and learns which of the protocol's versions the server speaks.
func (w *wire) greet(hello proto.ClientHello) error {
	w.out.ChainBuffer(hello.Encode)
	if err := w.flush(); err != nil {
		return err
	}
	var server proto.ServerHello
	switch code, err := w.code(); {
	case err != nil:
		return err
	case code == proto.ServerCodeException:
		return w.exception(false)
	case code != proto.ServerCodeHello:
		return fmt.Errorf("greeted with packet %s", code)
	}
	if err := server.DecodeAware(w.in, w.version); err != nil {
		return err
	}
	w.version = min(w.version, server.Revision)
	if proto.FeatureAddendum.In(w.version) {
		w.out.ChainBuffer(func(b *proto.Buffer) { b.PutString("") }) // no quota key
	}
	return w.flush()
}

// insert carries out an insert of one block; sent says whether some of the block may have left.
func (w *wire) insert(ctx context.Context, id, sql string, settings []proto.Setting, columns []proto.InputColumn) (sent bool, err error) {
	err = w.during(ctx, func() error {
		w.state(id, sql, settings, traces.Sampled(ctx))
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.until(proto.ServerCodeData, false); err != nil {
			return err
		}
		if err := w.block(columns); err != nil {
			return err
		}
		// If the context has ended by now the block stays here. From the first byte on it is unknown
		// whether ClickHouse takes it, until it says so.
		if err := ctx.Err(); err != nil {
			return err
		}
		sent = true
		if err := w.flush(); err != nil {
			return err
		}
		return w.until(proto.ServerCodeEndOfStream, true)
	})
	return sent, err
}

// during does f, and closes the connection if the context ends before: f then fails.
func (w *wire) during(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = w.conn.Close() // f says how far it came
		close(closed)
	})
	err := f()
	if !stop() {
		<-closed
		if err != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
	return err
}

// state writes the statement. An empty block after it means that no tables come with it.
func (w *wire) state(id, sql string, settings []proto.Setting, from trace.SpanContext) {
	query := proto.Query{
		ID: id, Body: sql, Stage: proto.StageComplete, Compression: proto.CompressionDisabled, Settings: settings,
		Info: proto.ClientInfo{
			ProtocolVersion: w.version, Interface: proto.InterfaceTCP, Query: proto.ClientQueryInitial,
			InitialQueryID: id, InitialAddress: w.conn.LocalAddr().String(), ClientName: "watershed",
			Span: from, // ClickHouse's own spans, if it has any, go on from ours
		},
	}
	w.out.ChainBuffer(func(b *proto.Buffer) { query.EncodeAware(b, w.version) })
	_ = w.data(nil) // has nothing that can fail
}

// block writes all rows as one block, and the empty one that ends them.
func (w *wire) block(columns []proto.InputColumn) error {
	if err := w.data(columns); err != nil {
		return err
	}
	return w.data(nil)
}

func (w *wire) data(columns []proto.InputColumn) error {
	w.out.ChainBuffer(func(b *proto.Buffer) {
		proto.ClientCodeData.Encode(b)
		proto.ClientData{}.EncodeAware(b, w.version)
	})
	head := proto.Block{Columns: len(columns)}
	if len(columns) > 0 {
		head.Rows, head.Info.BucketNum = columns[0].Data.Rows(), -1
	}
	return head.WriteBlock(w.out, w.version, columns)
}

func (w *wire) flush() error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	_, err := w.out.Flush()
	return err
}

// until reads to a packet of the kind that is awaited, and through it.
func (w *wire) until(awaited proto.ServerCode, sent bool) error {
	for {
		code, err := w.code()
		if err != nil {
			return err
		}
		if code == proto.ServerCodeException {
			return w.exception(sent)
		}
		if err := w.pass(code); err != nil {
			return fmt.Errorf("packet %s: %w", code, err)
		}
		if code == awaited {
			return nil
		}
	}
}

func (w *wire) code() (proto.ServerCode, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, err
	}
	n, err := w.in.UVarInt()
	return proto.ServerCode(n), err
}

// exception reads what ClickHouse refused a statement or block with.
func (w *wire) exception(sent bool) error {
	var x proto.Exception
	if err := x.DecodeAware(w.in, w.version); err != nil {
		return err
	}
	return &Error{code: int(x.Code), message: plainMessage(int(x.Code), x.Message), sent: sent}
}

// pass reads through a packet that needs no answer.
func (w *wire) pass(code proto.ServerCode) error {
	switch code {
	case proto.ServerCodeEndOfStream:
		return nil
	case proto.ServerCodeProgress:
		return new(proto.Progress).DecodeAware(w.in, w.version)
	case proto.ServerCodeProfile:
		return new(proto.Profile).DecodeAware(w.in, w.version)
	case proto.ServerCodeTableColumns:
		return new(proto.TableColumns).DecodeAware(w.in, w.version)
	case proto.ServerCodeData: // the table's columns
		return w.passBlock(new(proto.ColInfoInput))
	case proto.ServerCodeLog:
		return w.passBlock(new(proto.Logs).Result())
	case proto.ServerProfileEvents:
		return w.passBlock(new(proto.ProfileEvents).Result())
	}
	return errors.New("nobody asked for it")
}

func (w *wire) passBlock(into proto.Result) error {
	if _, err := w.in.Str(); err != nil { // a table's name
		return err
	}
	return new(proto.Block).DecodeBlock(w.in, w.version, into)
}

// wireSettings are settings as the protocol has them: ClickHouse fails if it does not know one.
func wireSettings(s clickhouse.Settings) []proto.Setting {
	out := make([]proto.Setting, 0, len(s))
	for key, value := range s {
		out = append(out, proto.Setting{Key: key, Value: fmt.Sprint(value), Important: true})
	}
	slices.SortFunc(out, func(a, b proto.Setting) int { return strings.Compare(a.Key, b.Key) })
	return out
}
