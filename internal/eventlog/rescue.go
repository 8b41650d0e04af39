package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/decode"
	"watershed/schemas"
)

const (
	rescueSubject = "rescue." // and sequence, hash, log timestamp, event type
	rescueEvents  = rescueSubject + "*.*.*.>"
	rescueLastCut = rescueSubject + "cut" // the last cut of the log that is being begun anew
	rescueCut     = "watershed_cut"       // metadata: the number of the cut behind which the messages go
	rescueWindow  = 512                   // messages sent and not acknowledged

	// loggedHeader is the log's timestamp of a message when it was published first, RFC 3339. Event
	// times are held against it, so that what fitted then fits still.
	loggedHeader = "Watershed-Logged"
)

// A rescue is the stream in which the messages of a log wait while it is begun anew: in the order
// of the log, without gaps from some message on. It has no limit but the disk.
type rescue struct {
	log    *Log
	stream jetstream.Stream
}

func (l *Log) rescueName() string { return l.cfg.Stream + "_RESCUE" }

func (l *Log) openRescue(ctx context.Context) (*rescue, error) {
	cfg := streamConfig(l.cfg)
	cfg.Name, cfg.Description = l.rescueName(), "Watershed: messages of a log that is being begun anew"
	cfg.Subjects, cfg.MaxBytes = []string{rescueSubject + ">"}, -1
	s, err := l.js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = l.js.CreateStream(ctx, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
	}
	return &rescue{l, s}, nil
}

// isFor reports that the messages belong behind the cut of that number.
func (r *rescue) isFor(cut uint64) bool {
	return r.stream.CachedInfo().Config.Metadata[rescueCut] == strconv.FormatUint(cut, 10)
}

func (r *rescue) setCut(ctx context.Context, cut uint64) error {
	cfg := r.stream.CachedInfo().Config
	cfg.Metadata = map[string]string{rescueCut: strconv.FormatUint(cut, 10)}
	s, err := r.log.js.UpdateStream(ctx, cfg)
	if err == nil {
		r.stream = s
	}
	return err
}

// saveCut keeps the log's last cut, if it has one: it is gone when the log is emptied, and with it which
// definitions held.
func (r *rescue) saveCut(ctx context.Context) error {
	cut, ok, err := r.log.LastCut(ctx)
	if err != nil || !ok {
		return err
	}
	msg, err := encodeCut(&cut)
	if err != nil {
		return err
	}
	msg.Subject = rescueLastCut
	_, err = r.log.js.PublishMsg(ctx, msg)
	return err
}

// savedCut is the cut that saveCut kept last. It has no position.
func (r *rescue) savedCut(ctx context.Context) (cut schemas.Cut, ok bool, err error) {
	msg, err := r.stream.GetLastMsgForSubject(ctx, rescueLastCut)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return cut, false, nil
	}
	if err != nil {
		return cut, false, err
	}
	c, err := decodeCut(msg.Header, msg.Data, schemas.Position{}, time.Time{})
	if err != nil {
		return cut, false, err
	}
	return *c, true, nil
}

// copy copies the log's messages of events behind kept, or behind what is already here, up to the mark.
func (r *rescue) copy(ctx context.Context, kept schemas.Position, mark uint64) error {
	info, err := r.stream.Info(ctx)
	if err != nil {
		return err
	}
	last := info.State.LastSeq
	after, err := r.holds(ctx, kept)
	if err != nil {
		return err
	}
	msg, err := r.stream.GetLastMsgForSubject(ctx, rescueEvents)
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	if err == nil {
		saved, err := parseSaved(msg.Subject)
		if err != nil {
			return err
		}
		here, err := r.holds(ctx, saved.position)
		if err != nil {
			return err
		}
		after = max(after, here)
	}
	// The chain of expected sequences keeps the order, and keeps out what another process sends.
	send, err := r.log.newPipeline(rescueWindow)
	if err != nil {
		return err
	}
	err = r.log.walk(ctx, r.log.stream, after, nil, func(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
		eventType, ok := strings.CutPrefix(msg.Subject(), eventSubject)
		if !ok || meta.Sequence.Stream >= mark {
			return nil
		}
		logged := meta.Timestamp
		if t, ok := loggedAt(msg.Headers()); ok {
			logged = t // it was published again before
		}
		at := hashOf(msg.Subject(), meta, msg.Data())
		out := &nats.Msg{Data: msg.Data(),
			Subject: fmt.Sprintf("%s%d.%016x.%d.%s", rescueSubject, at.Seq, at.Hash, logged.UnixNano(), eventType)}
		last++
		out.Header = contentOnly(decode.HeaderOf(headerOf(msg.Headers())))
		if len(out.Data)+contentSize(out.Header)+headerReserve > int(r.log.conn.MaxPayload()) {
			return send.alone(ctx, out) // no room for more than the headers that it came with
		}
		return send.message(ctx, out, jetstream.WithExpectLastSequence(last-1))
	})
	return errors.Join(err, send.wait(ctx))
}

// holds returns the sequence of a position that the log has, else 0.
func (r *rescue) holds(ctx context.Context, at schemas.Position) (uint64, error) {
	if at.Seq == 0 {
		return 0, nil
	}
	msg, err := r.log.message(ctx, at.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if hash(msg.Subject, msg.Time, msg.Data) != at.Hash {
		return 0, nil
	}
	return at.Seq, nil
}

// republish publishes all messages to the log, and returns their number. Their ids are new: the
// log would take those that their publishers gave them for ones that it has.
func (r *rescue) republish(ctx context.Context, cut uint64) (int, error) {
	p, err := r.log.NewPublisher(PublisherOptions{})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	n := 0
	err = r.log.walk(ctx, r.stream, 0, []string{rescueEvents}, func(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
		saved, err := parseSaved(msg.Subject())
		if err != nil {
			return err
		}
		out := r.log.eventMessage(ctx, saved.eventType, msg.Data(), fmt.Sprintf("anew/%d/%d", cut, meta.Sequence.Stream))
		out.Header.Set(loggedHeader, saved.logged.UTC().Format(time.RFC3339Nano))
		header := decode.HeaderOf(headerOf(msg.Headers()))
		if content := setContent(out.Header, header); len(out.Data)+content+headerReserve > int(r.log.conn.MaxPayload()) {
			out.Header = contentOnly(header)
		}
		n++
		return p.publish(ctx, out, saved.eventType)
	})
	_, flushErr := p.Flush(ctx)
	return n, errors.Join(err, flushErr)
}

// saved is what the subject of a rescued message says.
type saved struct {
	position  schemas.Position // in the log before
	logged    time.Time
	eventType string
}

func parseSaved(subject string) (s saved, err error) {
	parts := strings.SplitN(subject, ".", 5)
	if len(parts) != 5 || parts[4] == "" {
		return s, fmt.Errorf("subject %s is not that of a rescued message", subject)
	}
	var nanos int64
	var errs [3]error
	s.position.Seq, errs[0] = strconv.ParseUint(parts[1], 10, 64)
	s.position.Hash, errs[1] = strconv.ParseUint(parts[2], 16, 64)
	nanos, errs[2] = strconv.ParseInt(parts[3], 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return s, fmt.Errorf("subject %s is not that of a rescued message: %w", subject, err)
	}
	s.logged, s.eventType = time.Unix(0, nanos), parts[4]
	return s, nil
}

// loggedAt returns the log timestamp that a message had when it was published first, if this is
// not the first time.
func loggedAt(header nats.Header) (time.Time, bool) {
	text := header.Get(loggedHeader)
	if text == "" {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return t, err == nil
}

// A pipeline sends messages in order, up to a number of them ahead of their acknowledgements.
type pipeline struct {
	js      jetstream.JetStream
	pending []jetstream.PubAckFuture
	window  int
}

func (l *Log) newPipeline(window int) (*pipeline, error) {
	js, err := jetstream.New(l.conn, jetstream.WithPublishAsyncMaxPending(2*window), jetstream.WithPublishAsyncTimeout(setupTimeout))
	return &pipeline{js: js, window: window}, err
}

// message sends a message. Its outcome is that of a later call.
func (p *pipeline) message(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) error {
	if len(p.pending) == p.window {
		if err := p.settle(ctx); err != nil {
			return err
		}
	}
	f, err := p.js.PublishMsgAsync(msg, opts...)
	if err == nil {
		p.pending = append(p.pending, f)
	}
	return err
}

// alone sends a message when all before it are acknowledged, and waits for it.
func (p *pipeline) alone(ctx context.Context, msg *nats.Msg) error {
	if err := p.wait(ctx); err != nil {
		return err
	}
	_, err := p.js.PublishMsg(ctx, msg)
	return err
}

// wait returns when all messages are acknowledged.
func (p *pipeline) wait(ctx context.Context) error {
	for len(p.pending) > 0 {
		if err := p.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle takes the outcome of the oldest message.
func (p *pipeline) settle(ctx context.Context) error {
	f := p.pending[0]
	p.pending = p.pending[1:]
	select {
	case <-f.Ok():
		return nil
	case err := <-f.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
