package ingest_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"watershed/internal/bounded"
	"watershed/internal/ingest"
)

const ndjson = "Content-Type: application/x-ndjson"

func TestFormats(t *testing.T) {
	w := open(t, ingest.Config{})
	next := 0
	f := func(events int, body string, headers ...string) {
		t.Helper()
		for i := range events {
			body = strings.Replace(body, "#", line(next+i), 1)
		}
		got := w.accept(t, request(body, headers...))
		if got.Accepted != events || got.Rejected != 0 {
			t.Errorf("%q: got %+v; want %d events", body, got, events)
		}
		next += events
	}
	const json = "Content-Type: application/json"
	f(1, "#")
	f(2, "\n \r\n#\r\n\n  #  ", ndjson)
	f(2, "#\n#\n", ndjson+"; charset=UTF-8")
	f(1, " # ", json)
	f(1, "\n#", json)
	f(1, "[#]", json)
	f(3, " [\n#,\r\n#\t, # ]\n", json)
	pretty := func(id int) string {
		return fmt.Sprintf("{\n\t\"id\": %d,\n\t\"time\": \"2024-01-01T00:00:00Z\",\n\t\"site\": \"[{,\\\"\\\\\"\n}\n", id)
	}
	accept := func(events int, r ingest.Request) {
		t.Helper()
		if got := w.accept(t, r); got.Accepted != events || got.Rejected != 0 {
			t.Errorf("got %+v; want %d events", got, events)
		}
		next += events
	}
	accept(1, request(pretty(next), json))
	accept(2, request("["+pretty(next)+","+line(next+1)+"]", json))
	accept(500, request(gzipped(t, strings.NewReader(lines(next, next+500))), ndjson, "Content-Encoding: gzip"))
	accept(500, request(zstandard(t, strings.NewReader(lines(next, next+500))), ndjson, "Content-Encoding: zstd"))
	w.holds(t, 0, next)
}

func TestBodiesRefused(t *testing.T) {
	w := open(t, ingest.Config{MaxWire: 1 << 20, MaxBody: 2 << 20})
	const json = "Content-Type: application/json"
	for _, body := range []string{"", " \n\n", "[]", "[", "[,]", "[1", "[{}", "[{}}]", "{", `{"id":"`, `{"id":"\`, "{} {}", "[{}] x", "[{},]", "{\"site\":\"a\nb\"}"} {
		_, err := w.Accept(w.ctx, request(body, json))
		failsAs[*ingest.BodyError](t, err)
	}
	for _, headers := range [][]string{{"Content-Type: text/plain"}, {"Content-Type: x"}, {ndjson + "; charset=latin1"}, {"Content-Encoding: br"}} {
		_, err := w.Accept(w.ctx, request(line(1), headers...))
		failsAs[*ingest.MediaTypeError](t, err)
	}
	for _, header := range []string{"Content-Encoding: gzip", "Content-Encoding: zstd", "Idempotency-Key: " + strings.Repeat("k", 300)} {
		_, err := w.Accept(w.ctx, request(line(1), header))
		failsAs[*ingest.BodyError](t, err)
	}
	r := request(line(1))
	r.Type = "other"
	_, err := w.Accept(w.ctx, r)
	if unknown := failsAs[*ingest.UnknownTypeError](t, err); unknown != nil && !slices.Equal(unknown.Known, []string{"hit"}) {
		t.Errorf("got %v; want the types that there are", unknown)
	}
	_, err = w.Accept(w.ctx, request(strings.Repeat("\n", 1<<20+1), ndjson))
	if large := failsAs[*ingest.TooLargeError](t, err); large != nil && (large.Limit != 1<<20 || large.Unpacked) {
		t.Errorf("got %v; want the limit of what is sent", large)
	}
	r = request("", ndjson)
	r.Length = 1<<20 + 1
	_, err = w.Accept(w.ctx, r)
	failsAs[*ingest.TooLargeError](t, err)
	w.holds(t, 0, 0)
	// A body of just the limit is none too large.
	w.accept(t, request(line(0)+strings.Repeat("\n", 1<<20-len(line(0)))))
	w.accept(t, request(gzipped(t, strings.NewReader(line(1)+strings.Repeat("\n", 2<<20-len(line(1))))), "Content-Encoding: gzip"))
	w.holds(t, 0, 2)
}

// TestBombs sends bodies that unpack into far more than may be: each is refused within little memory.
func TestBombs(t *testing.T) {
	w := open(t, ingest.Config{})
	w.accept(t, request(line(0)))
	zeros := func() io.Reader { return io.LimitReader(newlines{}, 64<<20) }
	for encoding, body := range map[string]string{
		"gzip": gzipped(t, zeros()),
		"zstd": zstandard(t, zeros()),
	} {
		bounded.Run(t, func() {
			_, err := w.Accept(w.ctx, request(body, "Content-Encoding: "+encoding))
			if large := failsAs[*ingest.TooLargeError](t, err); large != nil && !large.Unpacked {
				t.Errorf("%s: got %v", encoding, large)
			}
		})
	}
	bounded.Run(t, func() {
		wide := zstandard(t, io.LimitReader(newlines{}, 32<<20), zstd.WithWindowSize(16<<20))
		_, err := w.Accept(w.ctx, request(wide, "Content-Encoding: zstd"))
		failsAs[*ingest.BodyError](t, err)
	})
	bounded.Run(t, func() {
		_, err := w.Accept(w.ctx, request("\x28\xb5\x2f\xfd\xa4\xff\xff\xff\xff", "Content-Encoding: zstd"))
		failsAs[*ingest.BodyError](t, err)
	})
	// Rows that do not fit cost an explanation each, and only the first are kept.
	bounded.Run(t, func() {
		const rows = 500_000
		_, err := w.Accept(w.ctx, request(strings.Repeat("x\n", rows)))
		if refused := failsAs[*ingest.RefusedError](t, err); refused != nil && (refused.Result.Rejected != rows || len(refused.Result.Rows) != 100) {
			t.Errorf("got %d rows refused and %d named; want %d and 100", refused.Result.Rejected, len(refused.Result.Rows), rows)
		}
	})
	w.holds(t, 0, 1)
}

type newlines struct{}

func (newlines) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '\n'
	}
	return len(p), nil
}

func TestRowsThatDoNotFit(t *testing.T) {
	w := open(t, ingest.Config{})
	body := strings.Join([]string{
		line(0),
		"",
		`{"id":1}`,
		line(1),
		"oops",
		`{"id":"x","time":1}`,
		`{"id":2,"time":"2024-01-01T00:00:00Z","a: b":1}`,
		line(2),
	}, "\n")
	want := []ingest.Row{
		{1, "time", "missing"},
		{3, "", `not a JSON object: "oops"`},
		{4, "id", `want int64, got "\"x\",\"time\":1}"`},
		{5, "a: b", "not declared"},
	}
	_, err := w.Accept(w.ctx, request(body))
	if refused := failsAs[*ingest.RefusedError](t, err); refused != nil && (!slices.Equal(refused.Result.Rows, want) || refused.Result.Rejected != 4 || refused.Result.Accepted != 0) {
		t.Errorf("got %+v; want %+v", refused.Result, want)
	}
	w.holds(t, 0, 0)
	r := request(body)
	r.Partial = true
	got := w.accept(t, r)
	if got.Accepted != 3 || got.Rejected != 4 || !slices.Equal(got.Rows, want) {
		t.Errorf("got %+v; want three events, and the others named", got)
	}
	w.holds(t, 0, 3)
	r = request("oops")
	r.Partial = true
	_, err = w.Accept(w.ctx, r)
	failsAs[*ingest.RefusedError](t, err)
	// An event that no message can hold, among rows that are checked segment by segment.
	huge := lines(3, 1000) + strings.Replace(line(-1), `"site":"`, `"site":"`+strings.Repeat("x", 1<<20), 1) + "\n" + lines(1000, 3000) + "oops\n"
	r = request(huge)
	r.Partial = true
	got = w.accept(t, r)
	if got.Accepted != 2997 || got.Rejected != 2 || got.Rows[0].Row != 997 || got.Rows[1].Row != 2998 {
		t.Errorf("got %+v; want the rows 997 and 2998 refused", got)
	}
	w.holds(t, 0, 3000)
}

// TestConcurrentRequests has many clients at once: the log has each event once, in far fewer messages than there
// were requests, and each answer names the last message with an event of its request.
func TestConcurrentRequests(t *testing.T) {
	w := open(t, ingest.Config{})
	const clients, requests, most = 32, 60, 5
	positions := make([][]uint64, clients)
	var wait sync.WaitGroup
	id := func(client, request int) int { return (client*requests + request) * most }
	for c := range clients {
		wait.Go(func() {
			for i := range requests {
				got, err := w.Accept(w.ctx, request(lines(id(c, i), id(c, i)+most)))
				if err != nil || got.Accepted != most {
					t.Errorf("got %+v, %v", got, err)
				}
				positions[c] = append(positions[c], got.Position)
			}
		})
	}
	wait.Wait()
	w.holds(t, 0, clients*requests*most)
	_, at := w.logged(t)
	messages := make(map[uint64]bool)
	for c := range clients {
		for i := range requests {
			for n := range most {
				if seq := at[int64(id(c, i)+n)]; seq != positions[c][i] {
					t.Fatalf("event %d is in message %d; the answer said %d", id(c, i)+n, seq, positions[c][i])
				}
			}
			messages[positions[c][i]] = true
		}
	}
	if len(messages) > clients*requests/2 {
		t.Errorf("%d messages for %d requests of %d clients: they do not share", len(messages), clients*requests, clients)
	}
}

// TestLargeRequest becomes several messages, and its position is that of the last.
func TestLargeRequest(t *testing.T) {
	w := open(t, ingest.Config{})
	const events = 40_000
	got := w.accept(t, request(lines(0, events)))
	w.holds(t, 0, events)
	_, at := w.logged(t)
	last := uint64(0)
	for _, seq := range at {
		last = max(last, seq)
	}
	if got.Position != last || last < 4 {
		t.Errorf("position %d; the last of its messages is %d", got.Position, last)
	}
}

func TestKeys(t *testing.T) {
	w := open(t, ingest.Config{})
	small, large := lines(0, 10), lines(10, 40_000)
	first := w.accept(t, request(small, "Idempotency-Key: a"))
	second := w.accept(t, request(large, "Idempotency-Key: b"))
	// Again: to this process, to another one, packed differently, and as several requests at once.
	other, err := ingest.New(ingest.Config{Log: w.log})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var wait sync.WaitGroup
	for _, in := range []*ingest.Ingest{w.Ingest, other, other} {
		wait.Go(func() {
			for want, r := range map[uint64]ingest.Request{
				first.Position:  request(gzipped(t, strings.NewReader(small)), "Idempotency-Key: a", "Content-Encoding: gzip"),
				second.Position: request(large, "Idempotency-Key: b"),
			} {
				if got, err := in.Accept(w.ctx, r); err != nil || got.Position != want {
					t.Errorf("sent again: got %+v, %v; want position %d", got, err, want)
				}
			}
		})
	}
	wait.Wait()
	w.holds(t, 0, 40_000)
	// A key used for something else loses nothing.
	if got := w.accept(t, request(lines(40_000, 40_001), "Idempotency-Key: a")); got.Position <= second.Position {
		t.Errorf("got position %d; want a new one", got.Position)
	}
	w.holds(t, 0, 40_001)
}

// TestFullLog fills the log from many clients: what was acknowledged is there, and what was refused says when to come
// again.
func TestFullLog(t *testing.T) {
	w := newWorld(t, hits(), ingest.Config{}, 256<<10)
	const clients, requests = 16, 100
	accepted := make([][]int, clients)
	refused := make([]int, clients)
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			for i := range requests {
				id := c*requests + i
				got, err := w.Accept(w.ctx, request(strings.Replace(line(id), `"site":"`, `"site":"`+strings.Repeat("x", 500), 1)))
				if err == nil && got.Accepted == 1 {
					accepted[c] = append(accepted[c], id)
					continue
				}
				refused[c]++
				again := failsAs[*ingest.LogError](t, err)
				if again != nil && (!again.Full || again.RetryAfter <= 0 || got.Accepted != 0) {
					t.Errorf("got %+v, %v", got, err)
				}
			}
		})
	}
	wait.Wait()
	times, _ := w.logged(t)
	n, no := 0, 0
	for c := range clients {
		no += refused[c]
		for _, id := range accepted[c] {
			if n++; times[int64(id)] != 1 {
				t.Errorf("event %d was acknowledged and is %d times in the log", id, times[int64(id)])
			}
		}
	}
	if n == 0 || no == 0 || n != len(times) {
		t.Errorf("%d accepted, %d refused, %d in the log; want some of each, and no others", n, no, len(times))
	}
	// When there is room again, what was refused is taken.
	if _, err := w.log.RaiseLimit(w.ctx, 16<<20); err != nil {
		t.Fatal(err)
	}
	w.accept(t, request(line(clients*requests)))
}

// TestBusy holds all memory with bodies that do not come: others are refused at once, and taken when it is free.
func TestBusy(t *testing.T) {
	w := open(t, ingest.Config{MaxWire: 1 << 20, MaxBody: 1 << 20, Memory: 4 << 20})
	var release []func()
	var wait sync.WaitGroup
	for id := range 2 {
		body, client := io.Pipe()
		begun := make(chan struct{})
		r := request("")
		r.Body, r.Length = &announced{body, begun}, 700<<10
		wait.Go(func() {
			if _, err := w.Accept(w.ctx, r); err != nil {
				t.Error(err)
			}
		})
		<-begun
		release = append(release, func() {
			_, err := io.WriteString(client, line(id))
			if err := errors.Join(err, client.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	r := request(line(2))
	r.Length = 1 << 20
	if _, err := w.Accept(w.ctx, r); !errors.Is(err, ingest.ErrBusy) {
		t.Errorf("got %v; want ErrBusy", err)
	}
	w.accept(t, request(line(2))) // a small one has room
	for _, f := range release {
		f()
	}
	wait.Wait()
	r = request(line(3))
	r.Length = 1 << 20
	w.accept(t, r)
	w.holds(t, 0, 4)
}

// announced tells when it is read first.
type announced struct {
	io.Reader
	begun chan struct{}
}

func (a *announced) Read(p []byte) (int, error) {
	select {
	case <-a.begun:
	default:
		close(a.begun)
	}
	return a.Reader.Read(p)
}

func TestCloseAnswersAll(t *testing.T) {
	w := open(t, ingest.Config{})
	const clients = 50
	var wait sync.WaitGroup
	results := make([]error, clients)
	for id := range clients {
		wait.Go(func() { _, results[id] = w.Accept(w.ctx, request(line(id))) })
	}
	w.Close()
	wait.Wait()
	times, _ := w.logged(t)
	for id, err := range results {
		switch {
		case err != nil && !errors.Is(err, ingest.ErrClosed):
			t.Errorf("event %d: %v", id, err)
		case (err == nil) != (times[int64(id)] == 1):
			t.Errorf("event %d: %v, and %d times in the log", id, err, times[int64(id)])
		}
	}
	if _, err := w.Accept(w.ctx, request(line(clients))); !errors.Is(err, ingest.ErrClosed) {
		t.Errorf("got %v; want ErrClosed", err)
	}
}
