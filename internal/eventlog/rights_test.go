package eventlog_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/eventlog"
	"watershed/schemas"
)

// refusals is a server's log, of which it keeps what users were refused.
type refusals struct {
	mu  sync.Mutex // guards all
	all []string
}

func (r *refusals) Errorf(format string, v ...any) {
	text := strings.ReplaceAll(format, "%s", "") + " "
	for _, part := range v {
		if s, ok := part.(string); ok {
			text += s + " "
		}
	}
	if strings.Contains(text, "Violation") {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = append(r.all, text)
	}
}

func (r *refusals) Noticef(string, ...any) {}
func (r *refusals) Warnf(string, ...any)   {}
func (r *refusals) Fatalf(string, ...any)  {}
func (r *refusals) Debugf(string, ...any)  {}
func (r *refusals) Tracef(string, ...any)  {}

// take returns what was refused since it was called last.
func (r *refusals) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// withRights is a server as docs/nats.conf has it, and where each user finds it.
func withRights(t *testing.T) (urlOf func(user string) string, refused *refusals) {
	t.Helper()
	t.Setenv("WATERSHED_NATS_PASSWORD", "watershed")
	t.Setenv("WATERSHED_PRODUCER_PASSWORD", "producer")
	o, err := server.ProcessConfigFile("../../docs/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.StoreDir, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, t.TempDir(), true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	refused = &refusals{}
	s.SetLoggerV2(refused, false, false, false)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(s.ClientURL(), "nats://"), ":")
	return func(user string) string { return "nats://" + user + ":" + user + "@127.0.0.1:" + port }, refused
}

// TestRights does all that a log can do, under the rights that docs/nats.conf gives Watershed, and all that a producer
// should be able to do and should not.
func TestRights(t *testing.T) {
	noLeak(t)
	urlOf, refused := withRights(t)
	l := openAt(t, urlOf("watershed"))
	ctx := testContext(t)
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, text := range refused.take() {
			t.Errorf("%s: refused: %s", what, text)
		}
	}
	ok("open", nil)
	first := cut(t, l, set(event("a")))
	for id := range 20 {
		publish(t, l, "a", line(id, ""), `{"id":"no"}`)
	}
	if all := rejected(t, l, schemas.Position{}); len(all) != 20 || len(letters(t, l, eventlog.DeadLetterFilter{})) != 20 {
		t.Errorf("%d dead letters; want 20", len(all))
	}
	ok("dead letters", nil)
	_, err := l.DropDeadLetters(ctx, eventlog.DeadLetterFilter{Limit: 5})
	ok("drop", err)
	_, err = l.ReplayDeadLetters(ctx, eventlog.DeadLetterFilter{Limit: 5})
	ok("replay", err)
	pub, err := l.NewPublisher(eventlog.PublisherOptions{})
	ok("publisher", err)
	ok("publish", pub.Publish(ctx, "a", []byte(line(100, "")), "x"))
	_, err = pub.Flush(ctx)
	ok("flush", err)
	pub.Close()
	_, err = l.Next(ctx, "term", 7)
	ok("counter", err)
	_, err = l.RaiseLimit(ctx, 512<<20)
	ok("raise", err)
	_, err = l.Before(ctx, time.Now().Add(-time.Hour))
	ok("before", err)
	_, _, _, err = l.NextOf(ctx, "a", 1)
	ok("next", err)
	_, err = l.Cut(ctx, 1)
	ok("cut", err)

	heard := make(chan string, 10)
	for name, listen := range map[string]func(func()) (func(), error){"stored": l.OnStored, "wanted": l.OnWanted} {
		stop, err := listen(func() { heard <- name })
		ok(name, err)
		defer stop()
	}
	other := openAt(t, urlOf("watershed"))
	for name, hint := range map[string]func(){"stored": other.Stored, "wanted": other.Wanted} {
		hint()
		select {
		case got := <-heard:
			if got != name {
				t.Errorf("heard %s; want %s", got, name)
			}
		case <-ctx.Done():
			t.Errorf("the hint %s was not heard: %v", name, refused.take())
		}
	}
	ok("hints", nil)

	last := cut(t, l, set(event("a")))
	_, err = l.Trim(ctx, last.Position)
	ok("trim", err)
	for id := range 20 {
		publish(t, l, "a", line(300+id, ""))
	}
	info, err := l.Info(ctx)
	ok("info", err)
	_, err = l.Anew(ctx, eventlog.AnewRequest{Above: info.Last + 1000, CutAbove: last.Number, Kept: first.Position, Definitions: set(event("a"))})
	ok("anew", err)
	if again, _ := ids(t, l, schemas.Position{}); len(again) != 20 {
		t.Errorf("%d events are in the log begun anew; want 20", len(again))
	}
	ok("read anew", nil)

	// A producer publishes, and that is all.
	conn, err := nats.Connect(urlOf("producer"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	ok("producer", err)
	_, err = js.Publish(ctx, "events.a", []byte(line(200, "")))
	ok("producer's event", err)
	for what, do := range map[string]func(context.Context) error{
		"a cut":         func(ctx context.Context) error { _, err := js.Publish(ctx, "control.cut", nil); return err },
		"a dead letter": func(ctx context.Context) error { _, err := js.Publish(ctx, "dlq.a.1.1", nil); return err },
		"the stream":    func(ctx context.Context) error { _, err := js.Stream(ctx, "WATERSHED"); return err },
		"a counter": func(ctx context.Context) error {
			_, err := js.Publish(ctx, "$KV.WATERSHED_counters.term", nil)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		if err := do(ctx); err == nil || len(refused.take()) == 0 {
			t.Errorf("%s: a producer had %v; want it refused", what, err)
		}
		cancel()
	}
	if _, err := conn.SubscribeSync("events.>"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(conn.Flush(), conn.LastError()); !errors.Is(err, nats.ErrPermissionViolation) || len(refused.take()) == 0 {
		t.Errorf("%v; want a producer to hear no events", err)
	}
}
