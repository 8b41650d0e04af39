// Package eventlog is the log: one JetStream stream in which events and cuts have one order.
//
// Subjects are events.<type> and control.cut. A message of the former is one or more events, in
// the format that its headers say (decode.FormatOf; without headers JSON, one per line); one of the latter is a numbered cut with the definitions that hold from
// there on. What does not fit its schema goes to a second stream, <STREAM>_DLQ, under
// dlq.<type>.<seq>.<row>; counters that never go back live in the KV bucket <STREAM>_counters.
//
// The log is trimmed up to cuts, so that it begins at sequence 1 or with a cut. While a log that
// has changed is begun anew, a message on control.anew ends it, and what is to be saved waits in
// <STREAM>_RESCUE.
//
// A position is a sequence and a hash of the message at it (xxhash64 over subject, a zero byte,
// the log's timestamp in nanoseconds as 8 bytes little-endian, and the payload). Headers are not
// hashed: a position tells logs from each other, not meanings. NATS changes no message that it has,
// neither headers nor payload, and another log that has the same bytes under the same sequence
// with the same nanosecond is a copy of this one, headers and all. Whoever reads
// on from a stored position has it held against the log first, and again whenever the connection
// or the server was lost: a log that was truncated, recreated or restored is a
// *LogChangedError, never skipped over.
//
// No other package knows NATS.
package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/schemas"
)

const (
	eventSubject = "events." // and the type
	cutSubject   = "control.cut"
	markSubject  = "control.anew" // a message without content that Anew ends the log before with
	deadSubject  = "dlq."         // and type, sequence, row

	reconnectWait = 100 * time.Millisecond
)

// Config says where the log is. Only URL must be set.
type Config struct {
	URL         string // nats://host:port, several with commas; may hold user:password@ or token@
	Credentials string // path of a NATS credentials file; empty: none
	Stream      string // default WATERSHED
	MaxBytes    int64  // limit of a stream that Open creates; default 8 GiB. An existing stream keeps its own.
	Replicas    int    // of streams that Open creates; default 1

	// How far an event time may lie before and after the log's timestamp of its message: what the
	// cuts that are published here say, for all readers behind them. Default 50 years and one day.
	Past, Future time.Duration

	Logger *slog.Logger // losing and finding the connection, readers beginning anew; nil: none
}

// Log is an open log. Its methods may be called by any number of goroutines.
type Log struct {
	cfg    Config
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	dead   jetstream.Stream
	kv     jetstream.KeyValue
	log    *slog.Logger
	step   func(string) // called between the steps of Anew; tests stop it there
}

// Open connects, creates what is missing of the stream, the dead-letter stream and the counters,
// and checks the settings of what is there: each that would let the log forget, lose its order
// or its positions is named in the error, with what to do about it. A connection lost later is
// sought again until Close; until it is back, calls fail and readers wait.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg.Stream = cmp.Or(cfg.Stream, "WATERSHED")
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 8<<30)
	cfg.Replicas = cmp.Or(cfg.Replicas, 1)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{cfg: cfg, log: cfg.Logger.With("stream", cfg.Stream), step: func(string) {}}
	if err := l.open(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("open log %s: %w", cfg.Stream, err)
	}
	return l, nil
}

func (l *Log) open(ctx context.Context) (err error) {
	if l.conn, err = l.connect(ctx); err != nil {
		return err
	}
	if l.js, err = jetstream.New(l.conn); err != nil {
		return err
	}
	if l.stream, err = l.ensure(ctx, streamConfig(l.cfg)); err != nil {
		return err
	}
	if isAside(l.stream.CachedInfo().Config.Subjects) {
		l.log.Warn("the log takes no events: it is being begun anew; if that was interrupted, go on with: watershed repair")
	}
	// If we stop here, the next Open finds the stream in order and goes on.
	if l.dead, err = l.ensure(ctx, deadConfig(l.cfg)); err != nil {
		return err
	}
	l.kv, err = l.counters(ctx)
	return err
}

func (l *Log) connect(ctx context.Context) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("watershed"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		// Without a connection a publish fails at once. Buffered it would go out at a time that
		// nobody knows, after its caller gave it up.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				l.log.Warn("connection to the log lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { l.log.Info("connected to the log again", "server", c.ConnectedUrlRedacted()) }),
	}
	if l.cfg.Credentials != "" {
		opts = append(opts, nats.UserCredentials(l.cfg.Credentials))
	}
	if deadline, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(time.Until(deadline)))
	}
	conn, err := nats.Connect(l.cfg.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return conn, nil
}

// Close closes the connection. Chunks and Publishers end with an error.
func (l *Log) Close() {
	if l.conn != nil {
		l.conn.Close()
	}
}

// Info is the state of the log.
type Info struct {
	Aside       bool   // it takes no events: Anew has begun and must be called to its end
	First       uint64 // sequence of the first message; Last+1 when there is none
	Last        uint64 // sequence of the last message that there ever was
	FirstTime   time.Time
	LastTime    time.Time
	Messages    uint64
	Bytes       uint64
	MaxBytes    int64
	Created     time.Time
	DeadLetters uint64
}

// Info returns the log's state.
func (l *Log) Info(ctx context.Context) (Info, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("log %s: %w", l.cfg.Stream, classify(err))
	}
	dead, err := l.dead.Info(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("dead letters of log %s: %w", l.cfg.Stream, err)
	}
	s := info.State
	return Info{
		First: max(s.FirstSeq, 1), Last: s.LastSeq, FirstTime: s.FirstTime, LastTime: s.LastTime,
		Messages: s.Msgs, Bytes: s.Bytes, MaxBytes: info.Config.MaxBytes, Created: info.Created,
		DeadLetters: dead.State.Msgs, Aside: isAside(info.Config.Subjects),
	}, nil
}

// At returns the position of the message at seq and the log's timestamp of it. A sequence
// without a message is an *LogChangedError.
func (l *Log) At(ctx context.Context, seq uint64) (schemas.Position, time.Time, error) {
	msg, err := l.message(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = l.missing(ctx, schemas.Position{Seq: seq})
	}
	if err != nil {
		return schemas.Position{}, time.Time{}, fmt.Errorf("log %s: message %d: %w", l.cfg.Stream, seq, classify(err))
	}
	return schemas.Position{Seq: seq, Hash: hash(msg.Subject, msg.Time, msg.Data)}, msg.Time, nil
}
