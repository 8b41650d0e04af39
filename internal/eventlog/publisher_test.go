package eventlog_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

func TestPublishTwiceUnderOneID(t *testing.T) {
	l, _ := open(t)
	ctx := testContext(t)
	first, err := l.Publish(ctx, "a", []byte(line(1, "")), "x")
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.Publish(ctx, "a", []byte(line(1, "")), "x")
	if err != nil || second != first {
		t.Errorf("got %d, %v; want %d again", second, err, first)
	}
}

func TestPublisher(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	ctx := testContext(t)
	p, err := l.NewPublisher(eventlog.PublisherOptions{InFlight: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const messages = 500
	for i := range messages {
		if err := p.Publish(ctx, "a", []byte(line(i, "")), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	last, err := p.Flush(ctx)
	if err != nil || last != messages {
		t.Errorf("Flush: got %d, %v; want %d", last, err, messages)
	}
	if last, err := p.Flush(ctx); last != 0 || err != nil {
		t.Errorf("second Flush: got %d, %v; want nothing new", last, err)
	}
}

// TestFullLogRefuses fills a log and expects that each message refused is named, and that all
// others are there.
func TestFullLogRefuses(t *testing.T) {
	ctx := testContext(t)
	l, err := eventlog.Open(ctx, eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := l.NewPublisher(eventlog.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	payload := []byte(line(1, `,"s":"`+strings.Repeat("x", 1000)+`"`))
	sent := 0
	for ; sent < 200; sent++ {
		if err := p.Publish(ctx, "a", payload, fmt.Sprint(sent)); err != nil {
			if !errors.Is(err, eventlog.ErrLogFull) {
				t.Fatal(err)
			}
			break
		}
	}
	last, err := p.Flush(ctx)
	refused := make(map[string]bool)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("Flush: got %v; want errors of the messages refused", err)
	}
	for _, err := range joined.Unwrap() {
		var one *eventlog.PublishError
		if !errors.As(err, &one) || !errors.Is(err, eventlog.ErrLogFull) || refused[one.ID] {
			t.Errorf("got %v; want one *PublishError with ErrLogFull per message", err)
			continue
		}
		refused[one.ID] = true
	}
	info, err := l.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if int(info.Messages)+len(refused) != sent || info.Last != last || info.First != 1 {
		t.Errorf("%d sent, %d refused, last acknowledged %d; the log has %+v", sent, len(refused), last, info)
	}
	var one *eventlog.PublishError
	if _, err := l.Publish(ctx, "a", payload, "again"); !errors.Is(err, eventlog.ErrLogFull) || !errors.As(err, &one) || one.ID != "again" {
		t.Errorf("Publish: got %v; want ErrLogFull of message again", err)
	}
}

func TestDeadLettersAreStoredOnce(t *testing.T) {
	l, url := open(t)
	ctx := testContext(t)
	cut(t, l, set(event("a")))
	publish(t, l, "a", line(1, ""), "oops", line(2, `,"x":1`))
	last := publish(t, l, "other.$type", "what\r\never")
	large := strings.Repeat("x", 1<<20-200) // too large to be stored whole besides our headers
	last = max(last, publish(t, l, "a", large))
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{})
	var rejects []schemas.Reject
	for {
		chunk := next(t, c)
		rejects = append(rejects, chunk.Rejects...)
		if chunk.Last.Seq == last {
			break
		}
	}
	if len(rejects) != 4 {
		t.Fatalf("got %d rejects; want 4", len(rejects))
	}
	for range 3 {
		if err := l.DeadLetter(ctx, rejects); err != nil {
			t.Fatal(err)
		}
	}
	info, err := l.Info(ctx)
	if err != nil || info.DeadLetters != uint64(len(rejects)) {
		t.Errorf("got %d dead letters, %v; want %d", info.DeadLetters, err, len(rejects))
	}
	dead, err := admin(t, url).Stream(ctx, "WATERSHED_DLQ")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rejects {
		msg, err := dead.GetLastMsgForSubject(ctx, fmt.Sprintf("dlq.%s.%d.%d", strings.NewReplacer(".", "_", "$", "_").Replace(r.Type), r.Seq, r.Row))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := msg.Header.Get("Nats-Msg-Id"); got != fmt.Sprintf("dlq/%d/%d", r.Seq, r.Row) {
			t.Errorf("got message id %s", got)
		}
		if msg.Header.Get("Watershed-Reason") != r.Reason || msg.Header.Get("Watershed-Type") != r.Type {
			t.Errorf("got headers %v; want the reason %q", msg.Header, r.Reason)
		}
		if size := msg.Header.Get("Watershed-Truncated"); size != "" {
			if size != fmt.Sprint(len(r.Payload)) || !strings.HasPrefix(string(r.Payload), string(msg.Data)) {
				t.Errorf("got %d bytes, truncated from %s; want a prefix of %d", len(msg.Data), size, len(r.Payload))
			}
		} else if string(msg.Data) != string(r.Payload) {
			t.Errorf("got %q; want the original bytes %q", msg.Data, r.Payload)
		}
	}
}
