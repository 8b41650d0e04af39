package eventlog_test

import (
	"fmt"
	"strings"
	"testing"

	"watershed/internal/eventlog"
	"watershed/schemas"
)

// BenchmarkChunks reads a log of messages with so many events each, decoded.
func BenchmarkChunks(b *testing.B) {
	for _, perMessage := range []int{1, 200} {
		b.Run(fmt.Sprintf("events=%d", perMessage), func(b *testing.B) {
			l, _ := open(b)
			cut(b, l, set(event("a", field("origin", schemas.String), field("delay", schemas.Int64))))
			p, err := l.NewPublisher(eventlog.PublisherOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			messages := 200_000
			if perMessage > 1 {
				messages = 10_000
			}
			for m := range messages {
				var lines []string
				for i := range perMessage {
					lines = append(lines, line(m*perMessage+i, `,"origin":"ATL","delay":12`))
				}
				if err := p.Publish(testContext(b), "a", []byte(strings.Join(lines, "\n")), ""); err != nil {
					b.Fatal(err)
				}
			}
			last, err := p.Flush(testContext(b))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				c := chunks(b, l, schemas.Position{}, eventlog.ChunkOptions{})
				for at := uint64(0); at < last; n++ {
					chunk := next(b, c)
					for _, rec := range chunk.Records {
						rec.Release()
					}
					at = chunk.Last.Seq
				}
				c.Close()
			}
			b.ReportMetric(float64(messages)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(messages*perMessage)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(n)/float64(b.N), "chunks/op")
		})
	}
}

// BenchmarkPublisher publishes single events with a message id.
func BenchmarkPublisher(b *testing.B) {
	l, _ := open(b)
	p, err := l.NewPublisher(eventlog.PublisherOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	payload := []byte(line(1, `,"origin":"ATL","delay":12`))
	ctx := b.Context()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := p.Publish(ctx, "a", payload, fmt.Sprint(n)); err != nil {
			b.Fatal(err)
		}
		n++
	}
	if _, err := p.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
}
