package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"watershed/internal/decode"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

const (
	definitionsAge = time.Second     // for which definitions are used without asking the log again
	definitionsIn  = 2 * time.Second // in which the log must have said what holds
	segmentBytes   = 64 << 10        // of rows that are checked at once; bounds what their errors take
)

// definitions are those of the log's last cut.
type definitions struct {
	log     *eventlog.Log
	reading singleflight.Group

	mu  sync.Mutex // guards what follows
	cut schemas.Position
	set *set
	at  time.Time // when the log was asked last
}

// A set is the types of one cut.
type set struct {
	types map[string]*checker
	known []string // their names, sorted
}

// of returns the checker of an event type, or an *UnknownTypeError.
func (d *definitions) of(ctx context.Context, eventType string) (*checker, error) {
	d.mu.Lock()
	s := d.set
	fresh := s != nil && time.Since(d.at) < definitionsAge
	d.mu.Unlock()
	if fresh && s.types[eventType] != nil {
		return s.types[eventType], nil
	}
	// A type that is not known may be that of a cut just made, so the log is asked again.
	read := d.reading.DoChan("", func() (any, error) { return d.read() })
	select {
	case r := <-read:
		if r.Err != nil {
			return nil, logError(ctx, r.Err)
		}
		s = r.Val.(*set)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c := s.types[eventType]; c != nil {
		return c, nil
	}
	return nil, &UnknownTypeError{Type: eventType, Known: s.known}
}

func (d *definitions) read() (*set, error) {
	ctx, cancel := context.WithTimeout(context.Background(), definitionsIn)
	defer cancel()
	asked := time.Now()
	cut, ok, err := d.log.LastCut(ctx)
	if err != nil {
		return nil, fmt.Errorf("which definitions hold is not known: %w", err)
	}
	if !ok {
		return nil, errNoDefinitions
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.set == nil || d.cut != cut.Position {
		d.cut, d.set = cut.Position, newSet(&cut)
	}
	d.at = asked
	return d.set, nil
}

var errNoDefinitions = errors.New("the log has no definitions yet: start `watershed up` or `watershed speed`")

func newSet(cut *schemas.Cut) *set {
	s := &set{types: make(map[string]*checker)}
	for _, ev := range cut.Definitions.Events {
		s.types[ev.Name] = &checker{event: ev, limits: eventlog.Limits(cut)}
		s.known = append(s.known, ev.Name)
	}
	slices.Sort(s.known)
	return s
}

// A checker holds rows against one event type.
type checker struct {
	event  *schemas.Event
	limits decode.Limits

	mu   sync.Mutex        // guards what follows
	free []*decode.Decoder // at most one for each slot
}

func (c *checker) take() *decode.Decoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		d := c.free[n-1]
		c.free = c.free[:n-1]
		return d
	}
	return decode.New(c.event, c.limits)
}

func (c *checker) giveBack(d *decode.Decoder) {
	d.Discard()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, d)
}

// check returns the rows of a body that fit as NDJSON, each with its line's end, and counts them and the others in the
// result. They take the body's own memory, or what is held for them.
func (in *Ingest) check(ctx context.Context, c *checker, f format, body []byte, held *hold, result *Result) ([]byte, error) {
	select {
	case in.slots <- struct{}{}:
		defer func() { <-in.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.split {
		var err error
		if body, err = values(body); err != nil {
			return nil, err
		}
	}
	d := c.take()
	defer c.giveBack(d)
	k := &check{d: d, now: time.Now(), largest: in.largest, most: in.cfg.MaxBody, result: result}
	if f.arrow {
		return k.arrow(c.event, body, held)
	}
	if !f.plain {
		return k.rewrite(c.event, f.as, body, held)
	}
	k.rows = body[:0]
	for rest := body; len(rest) > 0; {
		n := segment(rest)
		k.segment(rest[:n])
		rest = rest[n:]
	}
	return k.rows, nil
}

// segment is the length of the lines at the beginning of rows that are checked at once: as many as fit, or
// one.
func segment(rows []byte) int {
	if len(rows) <= segmentBytes {
		return len(rows)
	}
	if n := bytes.LastIndexByte(rows[:segmentBytes], '\n'); n >= 0 {
		return n + 1
	}
	if n := bytes.IndexByte(rows[segmentBytes:], '\n'); n >= 0 {
		return segmentBytes + n + 1
	}
	return len(rows)
}

// A check is one body being checked.
type check struct {
	d       *decode.Decoder
	now     time.Time
	largest int
	most    int64 // bytes of rows that are written anew
	result  *Result
	row     int    // number of the next row
	rows    []byte // that fit; over the part of the body that has been checked, if its lines are taken as they are
	line    []byte // being written, if not
	waiting []int  // numbers of the rows that the decoder has, if not
}

// segment checks lines and keeps those that fit.
func (k *check) segment(lines []byte) {
	if len(lines) > segmentBytes && len(bytes.TrimSpace(lines)) > k.largest {
		k.refuse(k.row, "", tooLarge(len(lines), k.largest))
		k.row++
		return
	}
	rejects := k.d.Append(lines, 0, k.now)
	fit := k.d.Rows()
	k.d.Discard()
	if len(rejects) > 0 && rejects[0].Row < 0 {
		return // blank lines alone
	}
	from := k.row
	k.row += fit + len(rejects)
	k.result.Accepted += fit
	for i := range rejects {
		field, reason := fieldOf(rejects[i].Reason)
		k.refuse(from+rejects[i].Row, field, reason)
	}
	if fit == 0 {
		return
	}
	row, bad := 0, 0
	for line := range bytes.Lines(lines) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if bad < len(rejects) && rejects[bad].Row == row {
			bad++
		} else {
			// What is written lies before what is read: a line loses space, and gains at most the end that the
			// body's last one lacks.
			k.rows = append(append(k.rows, line...), '\n')
		}
		row++
	}
}

func tooLarge(size, largest int) string {
	return fmt.Sprintf("event of %d bytes: at most %d fit into a message of the log", size, largest)
}

func (k *check) refuse(row int, field, reason string) {
	k.result.Rejected++
	if len(k.result.Rows) < maxRows {
		k.result.Rows = append(k.result.Rows, Row{Row: row, Field: field, Reason: reason})
	}
}

// fieldOf takes the field out of a reason that begins with it.
func fieldOf(reason string) (field, rest string) {
	named, ok := strings.CutPrefix(reason, "field ")
	if !ok {
		return "", reason
	}
	if quoted, err := strconv.QuotedPrefix(named); err == nil {
		// A field that is not declared may have any name; a long one is cut short.
		rest, ok = strings.CutPrefix(strings.TrimPrefix(named[len(quoted):], "…"), ": ")
		if name, err := strconv.Unquote(quoted); ok && err == nil {
			return name, rest
		}
	} else if field, rest, ok = strings.Cut(named, ": "); ok {
		return field, rest
	}
	return "", reason
}
