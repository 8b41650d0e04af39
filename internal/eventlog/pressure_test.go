package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

// refusal checks that an error of a publish says what it is and when to try again.
func refusal(t testing.TB, err, want error) {
	t.Helper()
	var one *eventlog.PublishError
	if !errors.Is(err, want) || !errors.As(err, &one) || one.RetryAfter() <= 0 {
		t.Fatalf("got %v; want a *PublishError of %v with a time to try again", err, want)
	}
}

// TestFullLogTakesEventsAgainAfterTrimming fills a small log, trims it and goes on; nothing acknowledged is lost.
func TestFullLogTakesEventsAgainAfterTrimming(t *testing.T) {
	noLeak(t)
	ctx := testContext(t)
	l, err := eventlog.Open(ctx, eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cut(t, l, set(event("a")))
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{})
	acked, seen := make(map[string]bool), make(map[string]bool)
	n := 0
	for range 3 {
		var last schemas.Cut
		for {
			if n++; n%50 == 0 {
				last = cut(t, l, set(event("a")))
			}
			if _, err = l.Publish(ctx, "a", []byte(line(n, ""))[:], ""); err != nil {
				break
			}
			acked[id(n)] = true
		}
		refusal(t, err, eventlog.ErrLogFull)
		for at := uint64(0); at < last.Position.Seq; {
			chunk := next(t, c)
			at = chunk.Last.Seq
			got := make(map[string][]string)
			rows(t, chunk, got)
			for _, e := range got["a"] {
				seen[strings.Fields(e)[0]] = true
			}
		}
		if trimmed, err := l.Trim(ctx, last.Position); err != nil || trimmed == 0 {
			t.Fatalf("trimmed %d, %v; want room", trimmed, err)
		}
	}
	rest, _ := ids(t, l, schemas.Position{})
	for id := range rest {
		seen[id] = true
	}
	if got, want := slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(acked)); !slices.Equal(got, want) {
		t.Errorf("read %d events; want the %d acknowledged", len(got), len(want))
	}
}

// TestStoppedServerRefuses publishes without a server: an error at once, and no acknowledgement.
func TestStoppedServerRefuses(t *testing.T) {
	noLeak(t)
	n := devtest.NATS(t)
	l := openAt(t, n.URL())
	cut(t, l, set(event("a")))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	_, err := l.Publish(ctx, "a", []byte(line(1, "")), "")
	refusal(t, err, eventlog.ErrUnreachable)

	p, err := l.NewPublisher(eventlog.PublisherOptions{Patience: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Publish(ctx, "a", []byte(line(1, "")), ""); err != nil {
		refusal(t, err, eventlog.ErrUnreachable)
	}
	last, err := p.Flush(ctx)
	if refusal(t, err, eventlog.ErrUnreachable); last != 0 {
		t.Errorf("got an acknowledgement of %d from nobody", last)
	}
}

// TestFullDiskRefuses fills the disk under the log: publishers are refused, none is acknowledged; when there is
// room again the same ones go on, the same reader too, and all that was acknowledged is there.
func TestFullDiskRefuses(t *testing.T) {
	noLeak(t)
	dir, ok := devtest.SmallDisk(t, "64m")
	if !ok {
		return
	}
	ctx := testContext(t)
	server := devtest.StartNATS(t, devserver.NATSConfig{Dir: filepath.Join(dir, "nats")})
	if _, err := eventlog.Open(ctx, eventlog.Config{URL: server.URL(), MaxBytes: 1 << 40}); err == nil || !strings.Contains(err.Error(), "lower the log's limit") {
		t.Errorf("a log larger than its disk: got %v; want an error that says what to do", err)
	}
	l, err := eventlog.Open(ctx, eventlog.Config{URL: server.URL(), MaxBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cut(t, l, set(event("a")))
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{})
	acked := make(map[string]bool)
	n := 0
	publish := func() error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		n++
		_, err := l.Publish(ctx, "a", []byte(line(n, "")+"\n"+strings.Repeat(" ", 100<<10)), fmt.Sprint(n))
		if err == nil {
			acked[id(n)] = true
		}
		return err
	}
	for range 20 {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	free := devtest.FillDisk(t, dir)
	for err == nil {
		err = publish()
	}
	refusal(t, err, eventlog.ErrUnreachable)
	free()
	for err = publish(); err != nil; err = publish() {
		refusal(t, err, eventlog.ErrUnreachable)
	}
	for range 20 {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	for len(acked) > 0 {
		got := make(map[string][]string)
		rows(t, next(t, c), got)
		for _, e := range got["a"] {
			id := strings.Fields(e)[0]
			if seen[id] {
				t.Errorf("%s was read twice", id)
			}
			seen[id] = true
			delete(acked, id)
		}
	}
}
