// Package ingest takes events in for the log: it reads what a client sends, holds every event against its
// type, and publishes those that fit in messages of many events.
//
//	body ─▶ unpacked, within limits ─▶ checked, row by row ─▶ packed with others ─▶ log ─▶ position
//
// What holds:
//
//   - Accept returns a Result only when the log has acknowledged every event that it counts as accepted.
//     After an error of the log some of the request may be in it: whoever sends it again does no harm, since
//     events that are equal by type, id and date count once.
//   - A request is taken whole or not at all as far as its rows are concerned, unless it asks for the rows
//     that fit. A request of more than one message that the log refuses halfway is the exception: its first
//     messages stay, and the client learns that it must send it again.
//   - The definitions are those of the log's last cut, at most a second old, and event times are held
//     against this machine's clock. The log's own timestamp decides later: an event at the very edge of the
//     range, or one that meets a new cut on its way, may still become a dead letter.
//   - Requests of one type share messages. A message is sent when nothing of the type is on its way, when
//     it is full, or after Config.Delay; so packing adds at most that much to a request's time.
//   - A request with a key has messages of its own, whose ids follow from type, key and content. Sent again within the
//     log's duplicate window (two minutes), under whichever process, it finds its own messages, and has the
//     same position. It cannot share a message: the log knows messages by their ids, not the requests in them.
//     The content is part of the id, so that a key that is used for something else loses nothing.
//   - Memory is bounded over all requests; one that finds no room is refused with ErrBusy before it is read.
package ingest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"watershed/internal/eventlog"
)

// Config bounds what is taken in. Only Log must be set; a zero field means its default.
type Config struct {
	Log *eventlog.Log

	MaxWire int64         // bytes of a body as it is sent; default 8 MiB
	MaxBody int64         // bytes of a body unpacked; default 16 MiB
	Memory  int64         // bytes for all requests together, at least four times MaxBody; default 128 MiB
	Delay   time.Duration // for which an event waits for others at most; default 5 ms

	Logger *slog.Logger // what the log refuses; nil: none
}

const (
	defaultWire   = 8 << 20
	defaultBody   = 16 << 20
	defaultMemory = 128 << 20
	defaultDelay  = 5 * time.Millisecond

	messageBytes  = 512 << 10 // of events in a message that holds more than one
	messageEvents = 10_000
	headerReserve = 1 << 10 // more than the headers of a message take, which the server counts too

	maxKey  = 256 // bytes of a key
	maxRows = 100 // refused rows that are named
)

func (c Config) withDefaults() (Config, error) {
	set := func(v *int64, to int64) {
		if *v == 0 {
			*v = to
		}
	}
	set(&c.MaxWire, defaultWire)
	set(&c.MaxBody, defaultBody)
	set(&c.Memory, defaultMemory)
	if c.Delay == 0 {
		c.Delay = defaultDelay
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Log == nil:
		return c, errors.New("a log is needed")
	case c.MaxWire < 0 || c.MaxBody < 0 || c.Delay < 0:
		return c, errors.New("a limit is below 0")
	case c.Memory < 4*c.MaxBody:
		return c, fmt.Errorf("%d bytes of memory: want at least four times the largest body, %d", c.Memory, 4*c.MaxBody)
	}
	return c, nil
}

// Ingest takes events in. Its methods may be called by any number of goroutines.
type Ingest struct {
	cfg         Config
	definitions definitions
	memory      *semaphore.Weighted
	slots       chan struct{} // one for each body that is being checked
	largest     int           // bytes of the largest event that fits into a message
	process     string        // begins the ids of messages whose requests have no key
	messages    atomic.Uint64 // numbers them

	mu      sync.Mutex // guards what follows
	packers map[string]*packer
	closed  bool
	open    sync.WaitGroup // calls of Accept, and messages on their way
}

// New returns an Ingest. Close it before its log.
func New(cfg Config) (*Ingest, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure ingest: %w", err)
	}
	return &Ingest{
		cfg: cfg, definitions: definitions{log: cfg.Log}, memory: semaphore.NewWeighted(cfg.Memory),
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)), largest: cfg.Log.MaxMessage() - headerReserve,
		process: "http/" + rand.Text() + "/", packers: make(map[string]*packer),
	}, nil
}

// A Request is one body of events.
type Request struct {
	Type    string
	Header  func(name string) string // of the HTTP request: Content-Type, Content-Encoding, Idempotency-Key, ce-…
	Body    io.Reader
	Length  int64 // of Body; below 0: unknown
	Partial bool  // rows that fit are published although others do not
}

// A Result says what became of a request.
type Result struct {
	Accepted int    // events that the log has
	Rejected int    // rows that do not fit their type
	Rows     []Row  // the first 100 of those
	Position uint64 // sequence of the last message that holds an event of the request
	Bytes    int64  // of the body, unpacked
}

// A Row is a row that does not fit its type.
type Row struct {
	Row    int    `json:"row" doc:"Its number among the rows of the body, from 0; blank lines do not count"`
	Field  string `json:"field,omitempty" doc:"The field at fault, if it is one"`
	Reason string `json:"reason"`
}

// Accept takes in the events of one request, and returns when the log has acknowledged them. A request
// whose client goes away while its events are on their way counts all the same: the context ends the
// reading of definitions and body alone.
//
// Errors about the request are an *UnknownTypeError, *MediaTypeError, *BodyError, *TooLargeError or
// *RefusedError, and nothing of it was published. ErrBusy and ErrClosed say the same of this process. A
// *LogError is one of the log.
func (in *Ingest) Accept(ctx context.Context, r Request) (Result, error) {
	if !in.enter() {
		return Result{}, ErrClosed
	}
	defer in.open.Done()
	format, err := formatOf(r.Header)
	if err != nil {
		return Result{}, err
	}
	key, err := keyOf(r.Header)
	if err != nil {
		return Result{}, err
	}
	types, err := in.definitions.of(ctx, r.Type)
	if err != nil {
		return Result{}, err
	}
	held := &hold{of: in.memory}
	defer held.release()
	body, err := in.read(&r, held)
	if err != nil {
		return Result{}, err
	}
	result := Result{Bytes: int64(len(body))}
	rows, err := in.check(ctx, types, format, body, held, &result)
	slices.SortStableFunc(result.Rows, func(a, b Row) int { return cmp.Compare(a.Row, b.Row) }) // some are found late
	if err != nil {
		return result, err
	}
	if result.Rejected > 0 && (!r.Partial || len(rows) == 0) {
		result.Accepted = 0
		return result, &RefusedError{Type: r.Type, Result: result}
	}
	if len(rows) == 0 {
		return result, &BodyError{errors.New("there is no event in the body")}
	}
	if result.Position, err = in.publish(ctx, r.Type, key, rows, result.Accepted); err != nil {
		result.Accepted = 0
		return result, logError(context.WithoutCancel(ctx), err)
	}
	return result, nil
}

func (in *Ingest) enter() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	in.open.Add(1)
	return true
}

// Close refuses new requests and returns when those that were taken have their answers.
func (in *Ingest) Close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.open.Wait()
}
