package eventlog_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

// patience bounds what a test waits for, on a machine on which many are run at once.
const patience = time.Minute

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// noLeak fails the test if it leaves a goroutine behind. It is called before anything is started.
func noLeak(t testing.TB) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func openAt(t testing.TB, url string) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Open(testContext(t), eventlog.Config{URL: url, MaxBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func open(t testing.TB) (*eventlog.Log, string) {
	t.Helper()
	url := devtest.NATS(t).URL()
	return openAt(t, url), url
}

// admin is the view of an administrator, who can do what the log itself never does.
func admin(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func event(name string, fields ...schemas.Field) *schemas.Event {
	return &schemas.Event{Name: name, ID: "id", Time: "time", Fields: append([]schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
	}, fields...)}
}

func field(name string, kind schemas.Kind) schemas.Field {
	return schemas.Field{Name: name, Type: schemas.Type{Kind: kind}}
}

func set(events ...*schemas.Event) schemas.Set { return schemas.Set{Events: events} }

// line is an event of a declaration without further fields than extra, such as `,"n":1`.
func line(id int, extra string) string {
	return fmt.Sprintf(`{"id":%d,"time":%d%s}`, id, time.Now().UnixMicro(), extra)
}

func publish(t testing.TB, l *eventlog.Log, eventType string, lines ...string) uint64 {
	t.Helper()
	seq, err := l.Publish(testContext(t), eventType, []byte(strings.Join(lines, "\n")), "")
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func cut(t testing.TB, l *eventlog.Log, definitions schemas.Set) schemas.Cut {
	t.Helper()
	last, _, err := l.LastCut(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.PublishCut(testContext(t), last, definitions, schemas.Set{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenCreatesAndFindsAgain(t *testing.T) {
	noLeak(t)
	l, url := open(t)
	ctx := testContext(t)
	info, err := l.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info.First != 1 || info.Last != 0 || info.Messages != 0 || info.MaxBytes != 256<<20 {
		t.Errorf("got %+v; want an empty log of 256 MiB", info)
	}
	seq := publish(t, l, "a", line(1, ""))
	again, err := eventlog.Open(ctx, eventlog.Config{URL: url, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	info, err = again.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info.First != seq || info.Last != seq || info.MaxBytes != 256<<20 {
		t.Errorf("got %+v; want message %d in a log of 256 MiB", info, seq)
	}
	at, when, err := again.At(ctx, seq)
	if err != nil || at.Seq != seq || at.Hash == 0 || !when.Equal(info.LastTime) {
		t.Errorf("At(%d): got %+v, %s, %v; want a position at %s", seq, at, when, err, info.LastTime)
	}
}

func TestOpenRefusesSettings(t *testing.T) {
	url := devtest.NATS(t).URL()
	js := admin(t, url)
	good := jetstream.StreamConfig{
		Name: "WATERSHED", Subjects: []string{"control.cut", "events.>"}, MaxBytes: 1 << 20, Discard: jetstream.DiscardNew,
		DenyDelete: true, DenyPurge: true, AllowDirect: true,
	}
	f := func(want string, spoil func(*jetstream.StreamConfig)) {
		t.Helper()
		ctx := testContext(t)
		cfg := good
		spoil(&cfg)
		if _, err := js.CreateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := js.DeleteStream(ctx, cfg.Name); err != nil {
				t.Fatal(err)
			}
		}()
		l, err := eventlog.Open(ctx, eventlog.Config{URL: url, MaxBytes: 1 << 20})
		if err == nil {
			l.Close()
		}
		switch {
		case want == "" && err != nil:
			t.Errorf("got %v; want the stream to be taken", err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("got %v; want an error that names %s", err, want)
		}
	}
	f("", func(*jetstream.StreamConfig) {})
	f("subjects are", func(c *jetstream.StreamConfig) { c.Subjects = c.Subjects[:1] })
	f("retention is", func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy })
	f("storage is", func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage })
	f("discard is", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld })
	f("max_bytes is", func(c *jetstream.StreamConfig) { c.MaxBytes = -1 })
	f("max_age is", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour })
	f("max_msgs is", func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 })
	f("max_msgs_per_subject is", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 })
	f("deny_delete is", func(c *jetstream.StreamConfig) { c.DenyDelete = false })
	f("", func(c *jetstream.StreamConfig) { c.DenyPurge = false })
	f("allow_msg_ttl is", func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true })
	f("allow_rollup_hdrs is", func(c *jetstream.StreamConfig) { c.AllowRollup, c.DenyPurge = true, false })
	f("allow_direct is", func(c *jetstream.StreamConfig) { c.AllowDirect = false })
	f("no_ack is", func(c *jetstream.StreamConfig) { c.NoAck = true })
}

func TestNextIsNeverTheSameTwice(t *testing.T) {
	l, _ := open(t)
	ctx := testContext(t)
	const callers, calls = 8, 25
	got := make(chan uint64, callers*calls)
	errs := make(chan error, callers)
	for range callers {
		go func() {
			for range calls {
				n, err := l.Next(ctx, "term", 0)
				if err != nil {
					errs <- err
					return
				}
				got <- n
			}
			errs <- nil
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	close(got)
	seen := make(map[uint64]bool)
	for n := range got {
		if seen[n] || n < 1 || n > callers*calls {
			t.Errorf("got %d; want each of 1 to %d once", n, callers*calls)
		}
		seen[n] = true
	}
	if n, err := l.Next(ctx, "term", 5000); err != nil || n != 5001 {
		t.Errorf("Next with floor 5000: got %d, %v; want 5001", n, err)
	}
	if n, err := l.Next(ctx, "term", 7); err != nil || n != 5002 {
		t.Errorf("Next with floor 7: got %d, %v; want 5002", n, err)
	}
}
