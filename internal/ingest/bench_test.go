package ingest_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watershed/internal/ingest"
)

// BenchmarkOneEvent has 64 clients that send one event after the other, without HTTP around it.
func BenchmarkOneEvent(b *testing.B) {
	w := open(b, ingest.Config{})
	const clients = 64
	var next atomic.Int64
	took := make([][]time.Duration, clients)
	b.ResetTimer()
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			for id := next.Add(1); id <= int64(b.N); id = next.Add(1) {
				r := request(line(int(id)))
				began := time.Now()
				if _, err := w.Accept(w.ctx, r); err != nil {
					b.Error(err)
				}
				took[c] = append(took[c], time.Since(began))
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(all[(len(all)-1)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}

// BenchmarkAlone is one client, which waits for nobody.
func BenchmarkAlone(b *testing.B) {
	w := open(b, ingest.Config{})
	for id := 0; b.Loop(); id++ {
		w.accept(b, request(line(id)))
	}
}

// BenchmarkPublishAlone is the log alone, for comparison.
func BenchmarkPublishAlone(b *testing.B) {
	w := open(b, ingest.Config{})
	for id := 0; b.Loop(); id++ {
		if _, err := w.log.Publish(w.ctx, "hit", []byte(line(id)), ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLargeBodies are NDJSON of 10,000 events each.
func BenchmarkLargeBodies(b *testing.B) {
	w := open(b, ingest.Config{})
	const events = 10_000
	body := lines(0, events)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		r := request("")
		r.Body, r.Length = strings.NewReader(body), int64(len(body))
		w.accept(b, r)
	}
	b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
