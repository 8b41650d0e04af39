package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

const (
	packersFlying = 4 // messages of a type that are on their way at once
	ownFlying     = 4 // and of one request that has messages of its own
)

// publish sends rows to the log, with those of others or in messages of their own, and returns the position
// that the last of them has.
func (in *Ingest) publish(ctx context.Context, eventType, key string, rows []byte, events int) (uint64, error) {
	if key == "" && len(rows) <= messageBytes/2 && events <= messageEvents/2 {
		return in.packer(eventType).add(ctx, rows, events).wait()
	}
	// What is on its way arrives, whether the client waits for it or not.
	var g errgroup.Group
	g.SetLimit(ownFlying)
	var mu sync.Mutex // guards position
	var position uint64
	for len(rows) > 0 {
		n := message(rows)
		payload := rows[:n:n]
		rows = rows[n:]
		id := in.messageID()
		if key != "" {
			id = keyedID(eventType, key, payload)
		}
		g.Go(func() error {
			seq, err := in.send(context.WithoutCancel(ctx), eventType, payload, id)
			mu.Lock()
			defer mu.Unlock()
			position = max(position, seq)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return position, nil
}

// message is the length of the rows that the first of several messages takes. It depends on the rows alone, so that a
// request that is sent again becomes the same messages.
func message(rows []byte) int {
	end := 0
	for range messageEvents {
		n := bytes.IndexByte(rows[end:], '\n') + 1
		if n == 0 || end > 0 && end+n > messageBytes {
			break
		}
		end += n
	}
	return end
}

// messageID is an id that no other message has: the log's answer may be lost on its way, and the client
// library sends a message again then.
func (in *Ingest) messageID() string {
	return in.process + strconv.FormatUint(in.messages.Add(1), 10)
}

// keyedID is the id of a message of a request with a key.
func keyedID(eventType, key string, payload []byte) string {
	h := sha256.New()
	for _, part := range []string{eventType, key} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	h.Write(payload)
	return "http/" + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// packer is the packer of an event type.
func (in *Ingest) packer(eventType string) *packer {
	in.mu.Lock()
	defer in.mu.Unlock()
	p := in.packers[eventType]
	if p == nil {
		p = &packer{delay: in.cfg.Delay, publish: func(ctx context.Context, payload []byte, links ...trace.Link) (uint64, error) {
			return in.send(ctx, eventType, payload, in.messageID(), links...)
		}}
		in.packers[eventType] = p
	}
	return p
}

// A packer brings rows of one type from many requests into few messages.
type packer struct {
	delay   time.Duration
	publish func(ctx context.Context, payload []byte, links ...trace.Link) (uint64, error)

	mu     sync.Mutex // guards what follows
	queue  []*pack    // not sent yet, oldest first; only the last takes rows
	flying int        // messages sent and not answered
}

// A pack is a message: being filled, waiting, on its way, or answered.
type pack struct {
	rows   []byte
	events int
	due    bool // it has waited as long as it may
	timer  *time.Timer
	traced []trace.Span // of the requests in it that are recorded, MaxLinks at most

	done chan struct{} // closed when what follows is set
	seq  uint64
	err  error
}

// add puts rows into the next message that has room for them.
func (p *packer) add(ctx context.Context, rows []byte, events int) *pack {
	p.mu.Lock()
	defer p.mu.Unlock()
	var to *pack
	if n := len(p.queue); n > 0 {
		to = p.queue[n-1]
	}
	if to == nil || len(to.rows)+len(rows) > messageBytes || to.events+events > messageEvents {
		to = &pack{done: make(chan struct{})}
		p.queue = append(p.queue, to)
	}
	to.rows, to.events = append(to.rows, rows...), to.events+events
	to.trace(ctx)
	p.send()
	if to.timer == nil && p.waits(to) {
		to.timer = time.AfterFunc(p.delay, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			to.due = true
			p.send()
		})
	}
	return to
}

// waits reports whether a pack is in the queue. p.mu is held.
func (p *packer) waits(k *pack) bool {
	return len(p.queue) > 0 && p.queue[len(p.queue)-1] == k
}

// send sends what may go: all that is full or due, and the rest when nothing is on its way. When the log is slower
// than the delay, more than a few messages wait for it and grow instead. p.mu is held.
func (p *packer) send() {
	for len(p.queue) > 0 && p.flying < packersFlying {
		first := p.queue[0]
		if p.flying > 0 && !first.due && len(p.queue) == 1 {
			return
		}
		p.queue = p.queue[1:]
		if first.timer != nil {
			first.timer.Stop()
		}
		p.flying++
		go p.fly(first)
	}
}

// fly publishes one message. It ends before the requests in it do, since they wait for it.
func (p *packer) fly(k *pack) {
	ctx, links := k.traces()
	k.seq, k.err = p.publish(ctx, k.rows, links...)
	p.mu.Lock()
	p.flying--
	p.send()
	p.mu.Unlock()
	close(k.done)
}

// wait returns the sequence of the message, when the log has it.
func (k *pack) wait() (uint64, error) {
	<-k.done
	return k.seq, k.err
}
