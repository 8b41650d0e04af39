package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

// BenchmarkArchive empties a log of messages of 250 page views each: events of one date, of 30, and of 365.
func BenchmarkArchive(b *testing.B) {
	const messages, each = 4000, 250
	for _, dates := range []int{1, 30, 365} {
		b.Run(fmt.Sprintf("dates=%d", dates), func(b *testing.B) {
			log, end := filledLog(b, messages, each, dates)
			b.ReportAllocs()
			before := cpuSeconds(b)
			for b.Loop() {
				drain(b, log, end)
			}
			b.ReportMetric((cpuSeconds(b)-before)/float64(b.N), "cpu-s/op")
			b.ReportMetric(messages*each*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mevents/s")
		})
	}
}

// cpuSeconds is what this process has used so far; the server of the log is another.
func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// filledLog is a log of page views between two cuts, and where the second stands.
func filledLog(b *testing.B, messages, each, dates int) (*eventlog.Log, uint64) {
	b.Helper()
	ctx := b.Context()
	log, err := eventlog.Open(ctx, eventlog.Config{URL: devtest.NATS(b).URL(), MaxBytes: 4 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(log.Close)
	set := schemas.Set{Events: []*schemas.Event{pageview()}}
	first, err := log.PublishCut(ctx, schemas.Cut{}, set, schemas.Set{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := log.NewPublisher(eventlog.PublisherOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	r := newRand(71)
	zipf := rand.NewZipf(r, 1.1, 8, 9_999)
	today := time.Now().Truncate(day)
	for range messages {
		var lines bytes.Buffer
		for range each {
			at := today.AddDate(0, 0, -r.IntN(dates)-1).Add(time.Duration(r.Int64N(int64(day))))
			fmt.Fprintf(&lines, `{"id":"%016x","time":"%s","user":%d,"page":"/page/%d","country":"c%02d","device":"phone","status":%d,"latency":%.3f,"amount":"%d.%02d"}`+"\n",
				r.Uint64(), at.Format("2006-01-02T15:04:05.000000Z"), r.IntN(1e6), zipf.Uint64(), r.IntN(50), 200+r.IntN(300), math.Exp(4+r.NormFloat64()), r.IntN(200), r.IntN(100))
		}
		if err := p.Publish(ctx, "pageview", lines.Bytes(), ""); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := p.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	last, err := log.PublishCut(ctx, first, set, schemas.Set{})
	if err != nil {
		b.Fatal(err)
	}
	return log, last.Position.Seq
}

// drain archives a log into a new history until a cut.
func drain(b *testing.B, log *eventlog.Log, cut uint64) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	open := func(ctx context.Context, after schemas.Position, types ...string) (Source, schemas.Cut, error) {
		c, _, err := log.CutFor(ctx, after.Seq)
		if err != nil {
			return nil, c, err
		}
		chunks, err := log.Chunks(ctx, after, eventlog.ChunkOptions{Types: types})
		return chunks, c, err
	}
	a, err := NewArchiver(ArchiverConfig{Root: b.TempDir(), App: testApp, Source: open, DeadLetters: log})
	if err != nil {
		b.Fatal(err)
	}
	a.step = func(step string) {
		if step == stepCut && a.main.types["pageview"].position.Seq >= cut {
			stop()
		}
	}
	if err := a.Run(ctx); !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}
