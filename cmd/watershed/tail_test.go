package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"watershed/serving/api"
)

const tailDefinitions = notesDefinitions + `
---
view: pairs
from: note
dimensions: {who: who, odd: "n % 2 == 1", of: of}
measures: {notes: count(), n: sum(n), mean: avg(n)}
`

// A sse is an event as a browser sees it.
type sse struct{ name, id, data string }

// A listener reads the events of a tail.
type listener struct {
	t      testing.TB
	header http.Header
	events chan sse
	id     string // of the last event that was read
	leave  func()
}

// listen opens a tail and fails the test unless the endpoint takes it.
func (r *rig) listen(view string, query url.Values, last string) *listener {
	r.t.Helper()
	resp, leave := r.open(view, query, last)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	l := &listener{t: r.t, header: resp.Header, events: make(chan sse, 1000), id: last, leave: leave}
	go func() {
		defer close(l.events)
		var e sse
		for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
			switch key, value, _ := strings.Cut(scan.Text(), ": "); key {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e != (sse{}) {
					l.events <- e
				}
				e = sse{}
			}
		}
	}()
	if e := l.next(); e.name != "" || e.id == "" {
		r.t.Fatalf("%+v; want an id before all", e)
	}
	return l
}

func (r *rig) open(view string, query url.Values, last string) (*http.Response, func()) {
	r.t.Helper()
	ctx, leave := context.WithCancel(r.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/v1/views/"+view+"/tail?"+query.Encode(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { leave(); resp.Body.Close() })
	return resp, leave
}

func (l *listener) next() sse {
	l.t.Helper()
	select {
	case e, ok := <-l.events:
		if !ok {
			l.t.Fatal("the tail has ended")
		}
		if e.id != "" {
			l.id = e.id
		}
		return e
	case <-time.After(patience):
		l.t.Fatal("no event")
		return sse{}
	}
}

// shown is a group as a tail sends it.
type shown struct {
	Dimensions struct {
		Who int64
		Odd bool
		Of  *string
	}
	Measures struct {
		Notes, N int64
		Mean     *float64
	}
	Position uint64
}

// until reads groups until one is good, and then up to the next id. It returns it and how many there were.
func (l *listener) until(good func(shown) bool) (found shown, groups int) {
	l.t.Helper()
	for seen := false; ; {
		e := l.next()
		switch {
		case e.name == "problem":
			l.t.Fatal(e.data)
		case e.name == "" && e.data != "":
			groups++
			var s shown
			if err := json.Unmarshal([]byte(e.data), &s); err != nil {
				l.t.Fatalf("%q: %v", e.data, err)
			}
			if !seen && good(s) {
				found, seen = s, true
			}
		case e.id != "" && seen:
			return found, groups
		}
	}
}

// TestTail follows views while events come, a batch goes live, and clients come and go.
func TestTail(t *testing.T) {
	r := newRig(t, "watershed_tail", strings.Replace(tailDefinitions, "who: int64, n: int64}", "who: int64, n: int64, of: {type: string, optional: true}}", 1), 10*time.Millisecond)
	r.work()
	r.serve()
	r.answers("mine")
	r.answers("none")
	r.answers("pairs")
	note := func(who, n int64) (seq uint64) {
		t.Helper()
		seq, err := r.note(who, n)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	fast := url.Values{"every": {"100ms"}}
	all, second, pairs := r.listen("mine", fast, ""), r.listen("mine", url.Values{"every": {"100ms"}, "filter": {"who:2"}}, ""),
		r.listen("pairs", url.Values{"every": {"100ms"}, "null": {"of"}, "filter": {"odd:true"}}, "")

	// What is sent is what the view shows.
	first := note(1, 5)
	note(2, 8)
	note(1, 7)
	got, _ := all.until(func(s shown) bool { return s.Dimensions.Who == 1 && s.Measures.Notes == 2 })
	if got.Measures.N != 12 || got.Position < first { // a view may be ahead of the position
		t.Errorf("%+v; want 12 at %d or later", got, first)
	}
	if got, n := second.until(func(s shown) bool { return s.Dimensions.Who == 2 }); got.Measures.N != 8 || n != 1 {
		t.Errorf("%+v among %d; want 8, and nobody else", got, n)
	}
	if got, _ := pairs.until(func(s shown) bool { return s.Measures.Notes == 2 }); got.Dimensions.Who != 1 || !got.Dimensions.Odd || got.Dimensions.Of != nil || *got.Measures.Mean != 6 {
		t.Errorf("%+v; want 2 odd ones of 1, with mean 6", got)
	}

	// Many changes are few events.
	const many = 300
	began, sum := time.Now(), int64(0)
	for n := range int64(many) {
		note(3, n)
		sum += n
	}
	got, groups := all.until(func(s shown) bool { return s.Dimensions.Who == 3 && s.Measures.Notes == many })
	if most := int(time.Since(began)/(100*time.Millisecond)) + 3; got.Measures.N != sum || groups > most {
		t.Errorf("%+v after %d events; want %d, after %d or fewer", got, groups, sum, most)
	}

	// Who comes back misses nothing, and is not sent what it had; only 3, the last to change, may come
	// again, as its values may have been ahead of the position.
	id := all.id
	all.leave()
	note(1, 100)
	again := r.listen("mine", fast, id)
	got, _ = again.until(func(s shown) bool {
		if s.Dimensions.Who == 2 {
			t.Errorf("%+v has not changed", s)
		}
		return s.Dimensions.Who == 1 && s.Measures.Notes == 3
	})
	if got.Measures.N != 112 {
		t.Errorf("%+v; want 112", got)
	}

	// More groups than are wanted at once: it says so.
	few := r.listen("mine", url.Values{"every": {"100ms"}, "groups": {"2"}}, "0"+id[strings.Index(id, "."):])
	sent := 0
	for {
		e := few.next()
		if e.name == "more" {
			if want := `{"groups":1,`; sent != 2 || !strings.HasPrefix(e.data, want) {
				t.Errorf("%s after %d groups; want %s after 2", e.data, sent, want)
			}
			break
		}
		if e.name == "" && e.data != "" {
			sent++
		}
	}

	// A flip.
	before := again.id
	r.batch(patience)
	var flip struct{ Build, Flip uint64 }
	for flip.Build == 0 {
		if e := again.next(); e.name == "build" {
			if err := json.Unmarshal([]byte(e.data), &flip); err != nil {
				t.Fatal(err)
			}
		}
	}
	note(1, 1000)
	if got, _ := again.until(func(s shown) bool { return s.Dimensions.Who == 1 && s.Measures.Notes == 4 }); got.Measures.N != 1112 {
		t.Errorf("%+v; want 1112", got)
	}
	if !strings.HasSuffix(again.id, fmt.Sprintf(".%d", flip.Flip)) {
		t.Errorf("id %s; want one of flip %d", again.id, flip.Flip)
	}
	late := r.listen("mine", fast, before)
	if e := late.next(); e.name != "build" {
		t.Errorf("%+v; want the flip first", e)
	}

	for query, status := range map[string]int{"every=1ms": 400, "every=2m": 400, "groups=0": 400, "groups=10001": 400, "filter=x:1": 400, "null=who": 400, "measures=n": 400} {
		ask, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if resp, _ := r.open("mine", ask, ""); resp.StatusCode != status {
			t.Errorf("%s: %s; want %d", query, resp.Status, status)
		}
	}
	for view, id := range map[string]string{"mine": "x", "nowhere": ""} {
		if resp, _ := r.open(view, nil, id); resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s from %q: %s; want 400 or 404", view, id, resp.Status)
		}
	}
}

// TestTailsAreBounded opens as many as may be, and one more; who goes away makes room.
func TestTailsAreBounded(t *testing.T) {
	r := newRig(t, "watershed_tails", notesDefinitions, 10*time.Millisecond)
	r.work()
	r.serve()
	r.answers("mine")
	reader, err := r.a.openReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	deps := r.a.deps(r.e, nil)
	deps.Reader = readerSide{reader}
	h, err := api.Handler(api.Config{Tails: 2}, deps)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	r.url = s.URL
	first := r.listen("mine", nil, "")
	second := r.listen("mine", nil, "")
	resp, _ := r.open("mine", nil, "")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v; want 429 and when to come back", resp.Status, resp.Header)
	}
	// Whichever of the two looks for both: the other goes on when it has left.
	first.leave()
	deadline := time.After(patience)
	for resp.StatusCode != http.StatusOK {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatal("no room after one has left")
		}
		resp, _ = r.open("mine", nil, "")
	}
	if _, err := r.note(7, 70); err != nil {
		t.Fatal(err)
	}
	if got, _ := second.until(func(s shown) bool { return s.Dimensions.Who == 7 }); got.Measures.N != 70 {
		t.Errorf("%+v; want 70", got)
	}
	second.leave()
}
