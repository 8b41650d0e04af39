package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"watershed/batch"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/serving/api"
	"watershed/serving/store"
)

const notesDefinitions = `
event: note
id: id
time: time
fields: {id: int64, time: timestamp, who: int64, n: int64}
---
view: mine
from: note
dimensions: {who: who}
measures: {notes: count(), n: sum(n)}
---
view: none
from: note
where: n < 0
measures: {notes: count()}
`

// A rig is the roles of up on the tests' engines: worker, archiver and endpoint.
type rig struct {
	t      testing.TB
	a      *app
	e      *engines
	url    string
	events atomic.Int64
	loops  atomic.Pointer[loops]
}

func newRig(t testing.TB, database, definitions string, every time.Duration) *rig {
	t.Helper()
	ctx := t.Context()
	c := devtest.SharedClickHouse(t)
	user, password := c.Admin()
	log, err := eventlog.Open(ctx, eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	db, err := store.Open(ctx, store.Config{Addr: c.Addr(), Database: database, User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &app{log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		cfg: config{History: t.TempDir(), Listen: "127.0.0.1:0", ClickHouse: c.Addr(), Database: database, Stream: "WATERSHED",
			tuning: tuning{FlushEvery: every, Horizon: time.Minute, HorizonRows: 1 << 20, Trim: trimOff}}}
	a.cfg.ReaderUser, a.cfg.ReaderPassword = c.Reader()
	r := &rig{t: t, a: a, e: &engines{log, db}}
	set, err := schemas.Load(fstest.MapFS{"d.yaml": {Data: []byte(definitions)}})
	if err == nil {
		_, err = log.PublishCut(ctx, schemas.Cut{}, *set, schemas.Set{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs something until stop, or the test's end.
func (r *rig) start(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// work runs worker and archiver.
func (r *rig) work() (stop func()) {
	r.t.Helper()
	l, err := r.a.loopsOf(r.e)
	if err != nil {
		r.t.Fatal(err)
	}
	r.loops.Store(l)
	return r.start(l.run)
}

// serve runs the endpoint.
func (r *rig) serve() (stop func()) {
	r.t.Helper()
	up := make(chan string, 1)
	stop = r.start(func(ctx context.Context) error {
		return r.a.serve(ctx, r.e, r.loops.Load(), func(addr string) error { up <- addr; return nil })
	})
	r.url = "http://" + <-up
	return stop
}

// answers waits until a view can be asked.
func (r *rig) answers(view string) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		status, _, text, err := r.ask("GET", "/v1/views/"+view, nil, "")
		if err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			r.t.Fatalf("view %s: %d %s %v", view, status, text, err)
		}
	}
}

// batch runs one, which waits so long for a speed layer that is behind.
func (r *rig) batch(wait time.Duration) {
	cfg := r.a.cfg.batch()
	cfg.History, cfg.App, cfg.Logger, cfg.Wait = r.a.cfg.History, r.a.appID(), r.a.log, wait
	if _, err := batch.Run(r.t.Context(), r.e.log, r.e.db, cfg); err != nil {
		r.t.Error(err)
	}
}

// note publishes an event and returns its position.
func (r *rig) note(who, n int64) (uint64, error) {
	id := r.events.Add(1)
	return r.e.log.Publish(r.t.Context(), "note", fmt.Appendf(nil, `{"id":%d,"time":%q,"who":%d,"n":%d}`, id, time.Now().UTC().Format(time.RFC3339Nano), who, n), "")
}

// ask asks the endpoint and returns what it answered.
func (r *rig) ask(method, path string, query url.Values, body string, header ...string) (status int, h http.Header, text string, err error) {
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path+"?"+query.Encode(), strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

// readBack asks for what a client has written, at its last position: every eighth time by SQL, else by a typed query.
func (r *rig) readBack(who int64, seq uint64, turn int) (notes, n int64, err error) {
	position := strconv.FormatUint(seq, 10)
	query := url.Values{"format": {"ndjson"}, "max_wait": {"30"}, "timeout": {"60"}}
	var status int
	var h http.Header
	var text string
	if turn%8 == 7 {
		status, h, text, err = r.ask("POST", "/v1/sql", query, fmt.Sprintf("SELECT notes, n FROM mine WHERE who = %d", who), "Watershed-Min-Position", position)
	} else {
		query.Set("min_position", position)
		query.Set("dimensions", "")
		query.Set("filter", fmt.Sprintf("who:%d", who))
		status, h, text, err = r.ask("GET", "/v1/views/mine", query, "")
	}
	if err != nil {
		return 0, 0, err
	}
	var row struct{ Notes, N int64 }
	if status != http.StatusOK {
		return 0, 0, fmt.Errorf("%d %s", status, text)
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return 0, 0, fmt.Errorf("%q: %w", text, err)
	}
	if at, _ := strconv.ParseUint(strings.TrimPrefix(h.Get("Watershed-Position"), "0:"), 10, 64); at < seq {
		return 0, 0, fmt.Errorf("Watershed-Position is %d; want %d or more", at, seq)
	}
	return row.Notes, row.N, nil
}

// readBacks is how many writes TestReadYourWrites reads back: 10,000 with -args -readbacks 10000.
var readBacks = flag.Int("readbacks", 200, "writes that are read back")

// TestReadYourWrites has clients write and read what they wrote, at the position that the write had:
// every answer must have all that its client has written. Meanwhile two batches go live, and the worker is stopped and another
// takes over.
func TestReadYourWrites(t *testing.T) {
	const clients = 32
	times := int64(*readBacks)
	r := newRig(t, "watershed_fresh", notesDefinitions, 10*time.Millisecond)
	stop := r.work()
	r.serve()
	r.answers("mine")
	r.answers("none")

	var writes, stale atomic.Int64
	var took [clients][]time.Duration
	half := make(chan struct{})
	var wait sync.WaitGroup
	began := time.Now()
	for who := range int64(clients) {
		wait.Go(func() {
			sum := int64(0)
			for turn := 0; ; turn++ {
				k := writes.Add(1)
				if k > times {
					return
				}
				if k == times/2 {
					close(half)
				}
				seq, err := r.note(who, k)
				if err != nil {
					t.Error(err)
					return
				}
				sum += k
				asked := time.Now()
				notes, n, err := r.readBack(who, seq, turn)
				if err != nil {
					t.Error(err)
					return
				}
				took[who] = append(took[who], time.Since(asked))
				if notes != int64(turn)+1 || n != sum {
					stale.Add(1)
					t.Errorf("client %d reads %d notes of %d at position %d; want %d of %d", who, notes, n, seq, turn+1, sum)
				}
			}
		})
	}
	wait.Go(func() {
		r.batch(patience)
		<-half
		stop()
		r.work()
		r.batch(patience)
	})
	wait.Wait()
	all := slices.Concat(took[:]...)
	slices.Sort(all)
	if int64(len(all)) != times && !t.Failed() {
		t.Errorf("%d reads; want %d", len(all), times)
	}
	if len(all) > 0 {
		t.Logf("%d writes read back by %d clients in %s, %d stale; from the log's acknowledgement to the answer p50 %s, p99 %s",
			len(all), clients, time.Since(began).Round(time.Millisecond), stale.Load(), all[len(all)/2].Round(time.Millisecond), all[len(all)*99/100].Round(time.Millisecond))
	}
}

// TestPositionNotReached asks for positions that nothing reaches.
func TestPositionNotReached(t *testing.T) {
	r := newRig(t, "watershed_behind", notesDefinitions, 10*time.Millisecond)
	stop := r.work()
	r.serve()
	r.answers("mine")
	r.answers("none")
	seq, err := r.note(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if notes, _, err := r.readBack(1, seq, 0); err != nil || notes != 1 {
		t.Fatalf("%d notes, %v; want 1", notes, err)
	}
	stop()
	later, err := r.note(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	behind := func(method, path, body string, min uint64, views []string, reason string) {
		t.Helper()
		status, _, text, err := r.ask(method, path, url.Values{"min_position": {fmt.Sprint(min)}, "max_wait": {"0.2"}}, body)
		if err != nil {
			t.Fatal(err)
		}
		var p api.Problem
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		if status != http.StatusGatewayTimeout || p.Code != api.NotReached || p.MinPosition != min || p.CurrentPosition == nil || *p.CurrentPosition >= min {
			t.Errorf("%s %s: %d %s; want not-reached below %d", method, path, status, text, min)
		}
		var named []string
		for _, l := range p.Lagging {
			named = append(named, l.View)
			if l.Position >= min || !strings.Contains(l.Reason, reason) {
				t.Errorf("%s %s: %+v; want a position below %d and a reason with %q", method, path, l, min, reason)
			}
		}
		if slices.Sort(named); !slices.Equal(named, views) {
			t.Errorf("%s %s: %q lag; want %q", method, path, named, views)
		}
	}
	behind("GET", "/v1/views/mine", "", later, []string{"mine"}, "not stored it yet")
	behind("GET", "/v1/views/mine", "", later+1, []string{"mine"}, fmt.Sprintf("ends at %d", later))
	behind("POST", "/v1/sql", "SELECT 1", later, []string{"mine", "none"}, "not stored it yet")
	if status, _, text, err := r.ask("GET", "/v1/views/mine", url.Values{"min_position": {"0:" + fmt.Sprint(seq)}}, ""); err != nil || status != http.StatusOK {
		t.Errorf("%d %s %v; want an answer at once, since the view has reached that position", status, text, err)
	}
	for _, q := range []url.Values{{"min_position": {"-1"}}, {"min_position": {"1:2"}}, {"max_wait": {"0"}}, {"min_position": {"1", "2"}}} {
		if status, _, text, err := r.ask("GET", "/v1/views/mine", q, ""); err != nil || status != http.StatusBadRequest {
			t.Errorf("%v: %d %s %v; want 400", q, status, text, err)
		}
	}
	// A batch computes from history what the worker did not fold: the build reaches the position by itself.
	asked := make(chan error, 1)
	go func() {
		notes, n, err := r.readBack(1, later, 0)
		if err == nil && (notes != 2 || n != 3) {
			err = fmt.Errorf("%d notes of %d; want 2 of 3", notes, n)
		}
		asked <- err
	}()
	r.start(r.loops.Load().archiver.Run)
	r.batch(5 * time.Second)
	if err := <-asked; err != nil {
		t.Error(err)
	}
}
