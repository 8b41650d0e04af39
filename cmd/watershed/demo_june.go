package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"watershed/batch"
	"watershed/internal/eventlog"
	"watershed/serving/store"
)

const (
	eventsPerMessage = 500     // how the demo's producer packs its events
	pace             = 220_000 // events/s: what is measured is how fresh answers are at a steady rate
)

// june publishes June while queries run and, during its last third, a batch.
func (d *demo) june(ctx context.Context) (*batch.Report, error) {
	messages, events, err := d.juneMessages(ctx)
	if err != nil {
		return nil, fmt.Errorf("read June from the source file: %w", err)
	}
	d.report.PublishedEvents = events
	watch := newVisibility(d.endpoint, d.a.cfg.Token)
	base, err := watch.count(ctx)
	if err != nil {
		return nil, err
	}
	var second *batch.Report
	g, ctx := errgroup.WithContext(ctx)
	lastThird := make(chan struct{})
	began := time.Now()
	g.Go(func() error { return d.publishJune(ctx, messages, watch, base, lastThird) })
	g.Go(func() (err error) {
		select {
		case <-lastThird:
		case <-ctx.Done():
			return ctx.Err()
		}
		second, err = d.batch(ctx)
		return err
	})
	g.Go(func() error { return watch.run(ctx, base+events) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r := &d.report
	r.Seconds.June = watch.reached.Sub(began).Seconds()
	r.EventsPerSecond = float64(events) / r.Seconds.June
	r.Visible = watch.percentiles()
	d.say("published June: %d flights, all visible after %.2f s (%.0f events/s); publish to visible p50 %.0f ms, p99 %.0f ms; %d queries ran meanwhile",
		events, r.Seconds.June, r.EventsPerSecond, r.Visible.P50, r.Visible.P99, watch.queries)
	d.sayBatch("build %d, while the last third of June was published,", second)
	return second, nil
}

// juneMessages reads June from the source file as the messages of a producer: flights as
// JSON, one per line.
func (d *demo) juneMessages(ctx context.Context) (messages [][]byte, events int64, err error) {
	rows, err := d.e.db.Query(ctx, store.Query{SQL: fmt.Sprintf(`SELECT formatRowNoNewline('JSONEachRow', id, time, origin, destination, delay, distance)
		FROM (SELECT concat(%s, '#', toString(_row_number)) AS id, formatDateTime(date, '%%Y-%%m-%%dT%%H:%%i:%%SZ', 'UTC') AS time, origin, destination, delay, distance
		      FROM %s WHERE date >= toDateTime64(%d, 6, 'UTC'))`, quoteSQL(baseName(d.source)), d.flights(), juneBegins.Unix())})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var message bytes.Buffer
	n := 0
	flush := func() {
		if n > 0 {
			messages = append(messages, bytes.Clone(message.Bytes()))
			message.Reset()
			n = 0
		}
	}
	for rows.Next() {
		var event string
		if err := json.Unmarshal(rows.AppendJSON(nil, 0), &event); err != nil {
			return nil, 0, err
		}
		message.WriteString(event)
		message.WriteByte('\n')
		events++
		if n++; n == eventsPerMessage {
			flush()
		}
	}
	flush()
	return messages, events, rows.Err()
}

func (d *demo) publishJune(ctx context.Context, messages [][]byte, watch *visibility, base int64, lastThird chan<- struct{}) error {
	pub, err := d.e.log.NewPublisher(eventlog.PublisherOptions{InFlight: 256})
	if err != nil {
		return err
	}
	defer pub.Close()
	total := base
	limit := rate.NewLimiter(pace, eventsPerMessage)
	for i, m := range messages {
		if i == len(messages)*2/3 {
			close(lastThird)
		}
		events := bytes.Count(m, []byte{'\n'})
		if err := limit.WaitN(ctx, events); err != nil {
			return err
		}
		total += int64(events)
		watch.published(total)
		if err := pub.Publish(ctx, "departure", m, "june-"+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	_, err = pub.Flush(ctx)
	return err
}

// A visibility measures how long events take from their publish to a query's answer.
type visibility struct {
	url, token string
	queries    int
	reached    time.Time // when the last event was visible
	waits      []time.Duration

	mu   sync.Mutex // guards sent
	sent []sending
}

// A sending is a message on its way: once the count reaches total, it is visible.
type sending struct {
	total int64
	at    time.Time
}

func newVisibility(endpoint, token string) *visibility {
	u := url.URL{Scheme: "http", Host: endpoint, Path: "/v1/sql", RawQuery: "format=ndjson"}
	return &visibility{url: u.String(), token: token}
}

// published notes, before it happens, the publish of a message that makes the count total.
func (v *visibility) published(total int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sent = append(v.sent, sending{total, time.Now()})
}

// run asks again and again until the answer is `want`.
func (v *visibility) run(ctx context.Context, want int64) error {
	for {
		n, err := v.count(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		v.queries++
		v.seen(n, now)
		switch {
		case n == want:
			v.reached = now
			return nil
		case n > want:
			return fmt.Errorf("the views count %d flights, and only %d were given to them", n, want)
		}
	}
}

func (v *visibility) seen(n int64, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for len(v.sent) > 0 && v.sent[0].total <= n {
		v.waits = append(v.waits, now.Sub(v.sent[0].at))
		v.sent = v.sent[1:]
	}
}

func (v *visibility) count(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.url, strings.NewReader("SELECT sum(flights) AS n FROM days"))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "text/plain")
	if v.token != "" {
		req.Header.Set("Authorization", "Bearer "+v.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, problemError(resp)
	}
	return decodeCount(resp.Body)
}

func (v *visibility) percentiles() demoVisible {
	if len(v.waits) == 0 {
		return demoVisible{}
	}
	slices.Sort(v.waits)
	at := func(q float64) float64 {
		return float64(v.waits[int(q*float64(len(v.waits)-1))].Microseconds()) / 1000
	}
	return demoVisible{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// peakMB is the most resident memory that this process has had, where the system tells.
func peakMB() float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b), "VmHWM:")
	if !ok {
		return 0
	}
	fields := strings.Fields(rest)
	kb, _ := strconv.ParseFloat(fields[0], 64) // the kernel's own number
	return kb / 1024
}
