package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

const (
	tailEvery     = 500 * time.Millisecond // between two looks for changes, if the tail does not say
	tailEveryMin  = 100 * time.Millisecond
	tailEveryMax  = 60 * time.Second
	tailGroups    = 1000 // groups that are sent at once, if the tail does not say
	tailGroupsMax = 10_000
	tailHeartbeat = 15 * time.Second
	tailPatience  = 30 * time.Second // for a client to take what is sent
	tailFallback  = time.Second      // without a hint, if there are hints
)

// tailInput documents the parameters of a tail; compileTail reads them out of the request.
type tailInput struct {
	request
	View   string   `path:"view" doc:"The view's name"`
	Every  string   `query:"every" doc:"Changes of so long are one: a duration from 100ms to 60s, default 500ms"`
	Groups string   `query:"groups" doc:"Groups that are sent at once, at most: 1 to 10000, default 1000"`
	From   string   `query:"from" doc:"RFC 3339 or a date: buckets that start then or later"`
	To     string   `query:"to" doc:"RFC 3339 or a date: buckets that start earlier"`
	Filter []string `query:"filter,explode" doc:"dimension:value; repeated for one dimension: any of the values"`
	Null   []string `query:"null,explode" doc:"A dimension: groups without a value there"`
	Last   string   `header:"Last-Event-ID" doc:"Go on behind the event with this id"`
}

// A place is where a tail stands: it has been sent what the view showed there, under that flip.
type place struct{ seq, flip uint64 }

func (p place) String() string { return fmt.Sprintf("%d.%d", p.seq, p.flip) }

// parsePlace reads an event's id.
func parsePlace(id string) (place, error) {
	seq, flip, ok := strings.Cut(id, ".")
	s, seqErr := strconv.ParseUint(seq, 10, 64)
	f, flipErr := strconv.ParseUint(flip, 10, 64)
	if !ok || seqErr != nil || flipErr != nil {
		return place{}, badParameter("Last-Event-ID", "%q: want the id of an event of a tail, like 1234.5", id)
	}
	return place{s, f}, nil
}

// A tailing is what a tail asks for. Those of equal keys share their looks.
type tailing struct {
	key    [sha256.Size]byte
	every  time.Duration
	groups uint64
	selection
}

func compileTail(v View, query url.Values) (*tailing, error) {
	if err := only(query, "every", "groups", "from", "to", "filter", "null"); err != nil {
		return nil, err
	}
	for _, name := range []string{"every", "groups", "from", "to"} {
		if _, err := once(query, name); err != nil {
			return nil, err
		}
	}
	t := &tailing{every: tailEvery, groups: tailGroups,
		selection: selection{view: v, dimensions: v.Dimensions, measures: v.Measures, parameters: map[string]string{}}}
	var err error
	if s := query.Get("every"); s != "" {
		if t.every, err = time.ParseDuration(s); err != nil || t.every < tailEveryMin || t.every > tailEveryMax {
			return nil, badParameter("every", "%q: want a duration from %s to %s", s, tailEveryMin, tailEveryMax)
		}
	}
	if s := query.Get("groups"); s != "" {
		if t.groups, err = strconv.ParseUint(s, 10, 64); err != nil || t.groups == 0 || t.groups > tailGroupsMax {
			return nil, badParameter("groups", "%q: want 1 to %d", s, tailGroupsMax)
		}
	}
	if err := t.setRange(query); err != nil {
		return nil, err
	}
	if err := t.setFilters(query); err != nil {
		return nil, err
	}
	slices.Sort(query["filter"])
	slices.Sort(query["null"])
	query.Set("every", t.every.String())
	query.Set("groups", strconv.FormatUint(t.groups, 10))
	t.key = sha256.Sum256([]byte(v.Plan + "\n" + v.Name() + "\n" + query.Encode()))
	return t, nil
}

// changesSQL finds the groups that changed behind {last:UInt64}, those that changed last first, and their values.
// The last column is how many there are.
//
// A group's speed states carry the position of the last flush that had some of it. Groups come out of all epochs
// that are still there: one that the live build has taken over since has changed too. Values come out of the merged
// view, which may be ahead of the groups, never behind them.
func (t *tailing) changesSQL(speedTable string) string {
	var inner, outer, dims, keys []string
	add := func(expression, name string) {
		alias := "_c" + strconv.Itoa(len(inner))
		inner = append(inner, expression+" AS "+alias)
		outer = append(outer, alias+" AS "+quote(name))
	}
	for _, d := range t.dimensions {
		c := column(d.Name)
		dims = append(dims, c)
		if d.Nullable { // IN knows no NULL
			keys = append(keys, "isNull("+c+")", "ifNull("+c+", defaultValueOfTypeName('"+d.Type.ClickHouse()+"'))")
		} else {
			keys = append(keys, c)
		}
		add(c, d.Name)
	}
	for _, m := range t.measures {
		states := make([]string, len(m.Columns))
		for i, c := range m.Columns {
			states[i] = column(c)
		}
		add(m.Func.FinishSQL(states), m.Name)
	}
	from := fmt.Sprintf("SELECT %s FROM %s AS s", strings.Join(inner, ", "), quote(t.view.Name()+"_states"))
	if len(dims) == 0 { // one group, and something has changed
		return fmt.Sprintf("SELECT %s, toUInt64(1) AS _total FROM (%s)", strings.Join(outer, ", "), from)
	}
	changed := fmt.Sprintf("FROM %s AS s WHERE %s GROUP BY %s", quote(speedTable),
		strings.Join(append([]string{"tupleElement(s._pos, 1) > {last:UInt64}"}, t.where...), " AND "), strings.Join(dims, ", "))
	// The inner names keep IN's columns apart from what they are grouped by.
	key := "tuple(" + strings.Join(keys, ", ") + ")"
	in := fmt.Sprintf("%s IN (SELECT %s %s ORDER BY max(tupleElement(s._pos, 1)) DESC, %s LIMIT {groups:UInt64})", key, key, changed, strings.Join(dims, ", "))
	return fmt.Sprintf("SELECT %s, (SELECT count() FROM (SELECT 1 %s)) AS _total FROM (%s WHERE %s GROUP BY %s) ORDER BY %s",
		strings.Join(outer, ", "), changed, from, strings.Join(append([]string{in}, t.where...), " AND "), strings.Join(dims, ", "), ordinals(len(dims)))
}

func ordinals(n int) string {
	out := make([]string, n)
	for i := range out {
		out[i] = "_c" + strconv.Itoa(i)
	}
	return strings.Join(out, ", ")
}

// tail answers GET /v1/views/{view}/tail.
func (a *api) tail(ctx context.Context, in *tailInput) (*huma.StreamResponse, error) {
	view, err := a.viewOf(ctx, in.View)
	if err != nil {
		return nil, err
	}
	t, err := compileTail(view, in.query)
	if err != nil {
		return nil, err
	}
	var at place
	id := in.header.Get("Last-Event-ID")
	if id != "" {
		if at, err = parsePlace(id); err != nil {
			return nil, err
		}
	}
	f, err := a.tails.join(t, a.config.Tails, func(ctx context.Context, from place) (*tick, error) { return a.changes(ctx, t, from) })
	if err != nil {
		return nil, err
	}
	live, here, _, err := a.stands(ctx, t)
	if err != nil {
		a.tails.leave(t, f)
		return nil, err
	}
	if id == "" {
		at = here
	} else if at.seq > here.seq {
		at.seq = here.seq // an older build is live, or another log: a position may come again
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer a.tails.leave(t, f)
		r, w := humago.Unwrap(hc)
		h := w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("X-Accel-Buffering", "no")
		h.Set("Watershed-Build", strconv.FormatUint(live.Build, 10))
		h.Set("Watershed-Cut", strconv.FormatUint(live.Cut, 10))
		h.Set("Watershed-Position", "0:"+strconv.FormatUint(here.seq, 10))
		if err := a.follow(r.Context(), w, f, at); err != nil {
			a.logger.DebugContext(ctx, "tail ended", "view", in.View, "error", err)
		}
	}}, nil
}

// viewOf is the view that the last cut defines under that name.
func (a *api) viewOf(ctx context.Context, name string) (View, error) {
	views, err := a.deps.Catalog.Views(ctx)
	if err != nil {
		return View{}, problemOf(ctx, err)
	}
	i := slices.IndexFunc(views, func(v View) bool { return v.Name() == name })
	if i < 0 {
		return View{}, problem(ViewNotFound, "there is no view %q; GET /v1/views lists them", name)
	}
	return views[i], nil
}

// follow sends what changes, until the client goes away, the endpoint stops, or something fails. A tail that
// ends may be gone on with, behind the last id that it sent.
func (a *api) follow(ctx context.Context, w http.ResponseWriter, f *feed, at place) error {
	ctx, cancel := context.WithCancel(ctx)
	ticks, failed, done := make(chan *tick), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		for at := at; ; {
			t, err := f.next(ctx, at)
			if err != nil {
				failed <- err
				return
			}
			at = t.to
			select {
			case ticks <- t:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	defer func() { cancel(); <-done }() // a query that still runs for this tail ends
	out := http.NewResponseController(w)
	// The server's time limits are those of requests.
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	send := func(b []byte) error {
		if err := out.SetWriteDeadline(time.Now().Add(tailPatience)); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		return out.Flush()
	}
	if err := send(fmt.Appendf(nil, "retry: 1000\nid: %s\n\n", at)); err != nil {
		return err
	}
	beat := time.NewTicker(tailHeartbeat)
	defer beat.Stop()
	for {
		var err error
		select {
		case t := <-ticks:
			err = send(t.events(at))
			at = t.to
		case err := <-failed:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p, jsonErr := json.Marshal(problemOf(ctx, err))
			return errors.Join(err, jsonErr, send(fmt.Appendf(nil, "event: problem\ndata: %s\n\n", p)))
		case <-beat.C:
			err = send([]byte(":\n\n"))
		case <-a.stopped:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}
