package eventlog_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/eventlog"
	"watershed/schemas"
)

// A content is a message as a producer of its own publishes it, and what becomes of its events:
// their ids, and the row and a part of the reason of each that does not fit.
type content struct {
	header  nats.Header
	payload string
	ids     []string
	rejects []string
}

func contents(now string) []content {
	const spec = `"specversion":"1.0","type":"t","source":"/s","id":"x"`
	ce := nats.Header{"ce-specversion": {"1.0"}, "ce-type": {"t"}, "ce-source": {"/s"}, "ce-id": {"a%20b"}, "ce-time": {now}}
	with := func(h nats.Header, name, v string) nats.Header {
		out := nats.Header{name: {v}}
		for k, v := range h {
			out[k] = v
		}
		return out
	}
	ev := func(id string) string { return fmt.Sprintf(`{"name":%q,"time":%q}`, id, now) }
	return []content{
		{nil, ev("n1") + "\n" + ev("n2"), []string{"n1", "n2"}, nil},
		{nats.Header{"Content-Type": {"application/x-ndjson; charset=utf-8"}}, ev("n3") + "\n" + ev("n4"), []string{"n3", "n4"}, nil},
		{nats.Header{"content-type": {"application/json"}}, "{\n\"name\":\"j1\",\n\"time\":\"" + now + "\"\n}\n", []string{"j1"}, nil},
		{nats.Header{"Content-Type": {"application/json"}}, ev("j2") + "\n" + ev("j3"), nil, []string{"0 behind the event"}},
		{nats.Header{"Content-Type": {"application/json"}}, "{\n\"name\":\"j4\",\"more\":1,\n\"time\":\"" + now + "\"\n}\n", nil, []string{`0 field "more": not declared`}},
		{nats.Header{"Content-Type": {"text/csv"}}, ev("u1"), nil, []string{`-1 Content-Type "text/csv" is not known`}},
		{nats.Header{"Content-Type": {";"}}, ev("u2"), nil, []string{`-1 Content-Type ";"`}},
		{ce, "{}", []string{"/s a b"}, nil},
		{with(ce, "Content-Type", "application/json"), `{"name":"c1"}`, []string{"c1"}, nil},
		{with(ce, "Content-Type", "application/x-ndjson"), `{"name":"c2"}`, nil, []string{"-1 one event"}},
		{nats.Header{"ce-id": {"1"}}, `{"name":"c3"}`, nil, []string{"-1 ce-specversion: missing"}},
		{with(ce, "ce-subject", strings.Repeat("x", 3<<10)), `{"more":1}`, nil, []string{`0 field "more": not declared`}},
		{nats.Header{"Content-Type": {"application/cloudevents+json"}}, `{` + spec + `,"data":` + ev("c4") + `}`, []string{"c4"}, nil},
		{nats.Header{"Content-Type": {"application/cloudevents-batch+json"}}, `[{` + spec + `,"data":` + ev("c5") + `}, {` + spec + `,"data":{"more":1}}]`,
			[]string{"c5"}, []string{`1 data: field "more": not declared`}},
		{nats.Header{"Content-Type": {"application/cloudevents-batch+json"}}, `[{` + spec + `,"data":` + ev("c6") + `}, {`, nil, []string{"-1 not JSON"}},
	}
}

// TestContent publishes messages in every format, right and wrong. What does not fit is a dead letter with its bytes
// and the headers that say how to read them; replayed when the schema takes it, it is what it would have been.
func TestContent(t *testing.T) {
	noLeak(t)
	l, url := open(t)
	ctx := testContext(t)
	js := admin(t, url)
	named := func(more ...schemas.Field) schemas.Set {
		return set(&schemas.Event{Name: "a", ID: "name", Time: "time", Fields: append([]schemas.Field{
			{Name: "name", Type: schemas.Type{Kind: schemas.String}}, {Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}}}, more...)})
	}
	first := cut(t, l, named())
	var all []content
	var want []string
	for _, c := range contents(first.At.UTC().Format("2006-01-02T15:04:05Z")) {
		ack, err := js.PublishMsg(ctx, &nats.Msg{Subject: "events.a", Header: c.header, Data: []byte(c.payload)})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		for _, r := range c.rejects {
			want = append(want, fmt.Sprintf("%d %s", ack.Sequence, r))
		}
	}
	namesAfter := func(after schemas.Position) (names []string) {
		info, err := l.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for c := chunks(t, l, after, eventlog.ChunkOptions{}); ; {
			chunk := next(t, c)
			if rec := chunk.Records["a"]; rec != nil {
				for r := range int(rec.NumRows()) {
					names = append(names, rec.Column(0).ValueStr(r))
				}
				rec.Release()
			}
			if chunk.Last.Seq == info.Last {
				return names
			}
		}
	}
	var names []string
	for _, c := range all {
		names = append(names, c.ids...)
	}
	if got := namesAfter(first.Position); !slices.Equal(got, names) {
		t.Errorf("got events %q; want %q", got, names)
	}

	bad := rejected(t, l, first.Position)
	if len(bad) != len(want) {
		t.Fatalf("got %d rejects %+v; want %q", len(bad), bad, want)
	}
	for i, r := range bad {
		at, reason, _ := strings.Cut(want[i], " ")
		row, reason, _ := strings.Cut(reason, " ")
		if fmt.Sprint(r.Seq) != at || fmt.Sprint(r.Row) != row || !strings.Contains(r.Reason, reason) {
			t.Errorf("got %d.%d %s; want %s", r.Seq, r.Row, r.Reason, want[i])
		}
	}
	got := letters(t, l, eventlog.DeadLetterFilter{})
	slices.SortFunc(got, func(x, y eventlog.DeadLetter) int {
		return cmp.Or(cmp.Compare(x.Seq, y.Seq), cmp.Compare(x.Row, y.Row))
	})
	for i, d := range got {
		if r := bad[i]; string(d.Payload) != string(r.Payload) || fmt.Sprint(d.Header) != fmt.Sprint(r.Header) {
			t.Errorf("letter %s: got %q with %v; want %q with %v", d.ID, d.Payload, d.Header, r.Payload, r.Header)
		}
	}

	mended := cut(t, l, named(schemas.Field{Name: "more", Type: schemas.Type{Kind: schemas.Int64}, Optional: true}))
	replay, err := l.ReplayDeadLetters(ctx, eventlog.DeadLetterFilter{})
	if err != nil || replay.Replayed != len(bad) {
		t.Fatalf("got %+v, %v; want %d replayed", replay, err, len(bad))
	}
	// The events of the batch and in binary mode have no name: theirs are made of their CloudEvents.
	names = []string{"j4", "/s a b"}
	if got := namesAfter(mended.Position); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(names))) {
		t.Errorf("after replay: got events %q; want %q", got, names)
	}
}

// TestAnewKeepsContent begins a log anew: what is published again is read as it was.
func TestAnewKeepsContent(t *testing.T) {
	noLeak(t)
	var js jetstream.JetStream
	b := newBrokenLog(t, func(t *testing.T, b *brokenLog) { js = admin(t, b.url) })
	for i, h := range []nats.Header{{"Content-Type": {"application/json"}}, {"ce-specversion": {"1.0"}, "ce-type": {"t"}, "ce-source": {"/s"}, "ce-id": {"1"},
		"ce-time": {time.Now().UTC().Format(time.RFC3339Nano)}}} {
		payload := fmt.Sprintf("{\n\"id\":%d,\n\"time\":%d}", 900+i, time.Now().UnixMicro())
		if h.Get("ce-id") != "" {
			payload = fmt.Sprintf("{\n\"id\":%d}", 900+i)
		}
		if _, err := js.PublishMsg(testContext(t), &nats.Msg{Subject: "events.a", Header: h, Data: []byte(payload)}); err != nil {
			t.Fatal(err)
		}
		b.has[id(900+i)] = true
	}
	result, err := b.log.Anew(testContext(t), b.request())
	if err != nil {
		t.Fatal(err)
	}
	b.check(t, result.Cut)
}
