package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"watershed/internal/traces"
	"watershed/schemas"
)

const (
	holdBack    = 256 << 10       // bytes of an answer up to which an error is still a problem
	chunk       = 64 << 10        // bytes that are written at once from there on
	overtime    = 2 * time.Second // beyond its timeout, for ClickHouse to stop a query by itself
	maxAttempts = 5               // at a query that flips overtake
)

// saw is what an answer saw.
type saw struct {
	Build, Cut uint64
	Seq        uint64 // at least so far, in shard 0
}

// look reads what an answer will see at least: the live build, and how far all the views reach. Positions
// only grow and are read before the query runs, so it sees them or more.
func (a *api) look(ctx context.Context, views []View) (live schemas.Live, seen saw, err error) {
	g, ctx := errgroup.WithContext(ctx)
	var marks map[string]schemas.Mark
	g.Go(func() (err error) { live, err = a.deps.Catalog.Live(ctx); return err })
	g.Go(func() (err error) {
		if len(views) > 0 {
			marks, err = a.deps.Catalog.Positions(ctx, views)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return live, seen, err
	}
	seen = saw{Build: live.Build, Cut: live.Cut}
	for i, v := range views {
		seq := marks[v.Plan].Position.Seq
		if i == 0 || seq < seen.Seq {
			seen.Seq = seq
		}
	}
	return live, seen, nil
}

// query runs a query and says what it saw. ClickHouse evaluates the merged views' scalar subquery on live
// while it analyses, that is before Query returns. Flips are numbered upwards: if the number before and
// the number after are equal, live did not change in between, and it is what the query used.
//
// So it is with a token: what await saw holds as long as the flip that it saw.
func (a *api) query(ctx context.Context, views []View, q Query, t token) (Rows, saw, error) {
	began, past := time.Now(), uint64(0)
	waiting, cancel := context.WithDeadline(ctx, began.Add(min(t.wait, q.Timeout)))
	defer cancel()
	for range maxAttempts {
		var before schemas.Live
		var seen saw
		var err error
		run := q
		if t.min > 0 {
			var l *look
			if l, err = a.await(waiting, t, past); err == nil {
				before, seen, past = l.Live, saw{Build: l.Live.Build, Cut: l.Live.Cut, Seq: t.least(&l.Reached)}, l.n
			}
			run.Timeout = max(q.Timeout-time.Since(began), time.Second)
		} else {
			before, seen, err = a.look(ctx, views)
		}
		if err != nil {
			return nil, saw{}, err
		}
		run.ID = queryID(ctx)
		rows, err := a.deps.Reader.Query(ctx, run)
		if err != nil {
			return nil, saw{}, err
		}
		after, err := a.deps.Catalog.Live(ctx)
		if err == nil && after.Flip == before.Flip {
			return rows, seen, nil
		}
		if err := errors.Join(err, rows.Close()); err != nil {
			return nil, saw{}, err
		}
		a.watch.stored() // a flip
	}
	return nil, saw{}, problem(BuildChanged, "the live build changed %d times while the query was analysed; try again", maxAttempts)
}

// An answer is a result on its way to the client. Whoever makes one must send or close it.
type answer struct {
	format  format
	saw     saw
	rows    Rows
	columns []Column
	limit   uint64
	cancel  context.CancelFunc // ends the query's context
	span    trace.Span         // ends with the rows
	failed  error              // why they broke off

	buf   []byte // encoded, not yet sent
	n     uint64 // rows encoded
	ended bool   // buf holds the end
}

// answer runs a query and encodes the beginning of its result.
func (a *api) answer(ctx context.Context, views []View, q Query, f format, t token) (*huma.StreamResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, q.Timeout+overtime)
	ctx, span := a.queryTrace(ctx, t)
	q.Parameters = escaped(q.Parameters)
	rows, seen, err := a.query(ctx, views, q, t)
	if err != nil {
		err = a.explain(ctx, views, err)
		traces.End(span, err)
		cancel()
		return nil, err
	}
	ans := &answer{format: f, saw: seen, rows: rows, columns: rows.Columns(), limit: q.Rows, cancel: cancel, span: span}
	if f.begin != nil {
		ans.buf = f.begin(ans.buf, ans.columns)
	}
	if err := ans.fill(holdBack); err != nil {
		ans.failed = err
		p := a.explain(ctx, views, err)
		p.cause = errors.Join(p.cause, ans.close())
		return nil, p
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		if err := ans.send(w); err != nil {
			a.logger.DebugContext(r.Context(), "answer broken off", "path", r.URL.Path, "rows", ans.n, "error", err)
			// The headers are gone. An answer without its last chunk is one that clients refuse.
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

// escaped are plain texts as ClickHouse reads parameters: with the escapes of TabSeparated.
func escaped(plain map[string]string) map[string]string {
	escapes := strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`)
	out := make(map[string]string, len(plain))
	for name, text := range plain {
		out[name] = escapes.Replace(text)
	}
	return out
}

// fill encodes rows until so many bytes wait or the result has ended.
func (ans *answer) fill(bytes int) error {
	for len(ans.buf) < bytes {
		if !ans.rows.Next() {
			if err := ans.rows.Err(); err != nil {
				return err
			}
			if ans.format.end != nil {
				ans.buf = ans.format.end(ans.buf, ans.n, ans.rows.Stats(), ans.saw)
			}
			ans.ended = true
			return nil
		}
		if ans.n == ans.limit {
			return problem(LimitExceeded, "the result has more than %d rows; ask for fewer, or for a higher limit with rows=", ans.limit)
		}
		ans.buf = ans.format.row(ans.buf, ans.columns, ans.rows, ans.n)
		ans.n++
	}
	return nil
}

// send writes headers, what waits, and the rest as it comes.
func (ans *answer) send(w http.ResponseWriter) (err error) {
	defer func() { ans.failed = err; err = errors.Join(err, ans.close()) }()
	h := w.Header()
	h.Set("Content-Type", ans.format.contentType)
	h.Set("Watershed-Build", strconv.FormatUint(ans.saw.Build, 10))
	h.Set("Watershed-Cut", strconv.FormatUint(ans.saw.Cut, 10))
	h.Set("Watershed-Position", "0:"+strconv.FormatUint(ans.saw.Seq, 10))
	if ans.ended {
		h.Set("Content-Length", strconv.Itoa(len(ans.buf)))
	}
	flusher := http.NewResponseController(w)
	for {
		if _, err := w.Write(ans.buf); err != nil {
			return err
		}
		if ans.ended {
			return nil
		}
		if err := flusher.Flush(); err != nil {
			return err
		}
		ans.buf = ans.buf[:0]
		if err := ans.fill(chunk); err != nil {
			return err
		}
	}
}

// close stops the query, if it still runs.
func (ans *answer) close() error {
	err := ans.rows.Close()
	ans.span.SetAttributes(traces.Rows.Int64(int64(ans.n)))
	traces.End(ans.span, errors.Join(ans.failed, err))
	ans.cancel()
	return err
}

// explain says what a failed query means to the client. A merged view whose plan the live build does not cover
// throws, and names itself; whether that is the reason, the build tells. So does one over a gap between the build
// and its speed states.
func (a *api) explain(ctx context.Context, views []View, err error) *Problem {
	p := problemOf(ctx, err)
	if p.ClickHouse != chThrowIf {
		return p
	}
	live, err := a.deps.Catalog.Live(ctx)
	if err != nil {
		return p
	}
	build, err := a.deps.Catalog.Build(ctx, live.Build)
	if err != nil {
		return p
	}
	for _, v := range views {
		if strings.HasPrefix(p.Detail, "view "+v.Name()+": its speed states do not reach back") {
			q := problem(NotCovered, "build %d ends before the speed states of view %s begin; the next batch will close the gap", live.Build, v.Name())
			q.ClickHouse, q.cause = p.ClickHouse, p.cause
			return q
		}
		if _, covered := build.Plans[v.Plan]; !covered && slices.Contains(strings.FieldsFunc(p.Detail, notInName), v.Name()) {
			q := problem(NotCovered, "build %d does not cover view %s, whose definition is newer; the next batch will", live.Build, v.Name())
			q.ClickHouse, q.cause = p.ClickHouse, p.cause
			return q
		}
	}
	for _, v := range views { // a flip since then may cover it
		if strings.HasPrefix(p.Detail, "view "+v.Name()+": its definition is newer than the live build") {
			q := problem(NotCovered, "the live build did not cover view %s yet; ask again", v.Name())
			q.ClickHouse, q.cause = p.ClickHouse, p.cause
			return q
		}
	}
	return p
}

func notInName(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}
