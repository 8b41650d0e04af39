package decode_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"watershed/internal/decode"
	"watershed/schemas"
)

func departure() *schemas.Event {
	return &schemas.Event{Name: "departure", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.String}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "origin", Type: schemas.Type{Kind: schemas.String}},
		{Name: "delay", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "distance", Type: schemas.Type{Kind: schemas.Float64}, Optional: true},
	}}
}

// BenchmarkAppend decodes messages of 200 events of five fields; every 64k events a record is
// taken.
func BenchmarkAppend(b *testing.B) {
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	origins := []string{"ATL", "ORD", "DFW", "LAX", "PHX", "DEN"}
	const perMessage = 200
	var messages [][]byte
	size := 0
	for m := range 330 {
		var sb strings.Builder
		for i := range perMessage {
			n := m*perMessage + i
			fmt.Fprintf(&sb, `{"id":"flight-%08d","time":"%s","origin":"%s","delay":%d,"distance":%d.5}`+"\n", n,
				at.Add(time.Duration(n)*time.Second/100).Format(time.RFC3339Nano), origins[n%len(origins)], n%200-20, n%3000)
		}
		messages = append(messages, []byte(sb.String()))
		size += sb.Len()
	}
	d := decode.New(departure(), decode.Limits{})
	b.SetBytes(int64(size / len(messages) / perMessage))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n%perMessage != 0 { // one iteration is one event
			n++
			continue
		}
		if rejects := d.Append(messages[n/perMessage%len(messages)], 1, at); len(rejects) > 0 {
			b.Fatal(rejects[0].Reason)
		}
		if d.Rows() >= 65536 {
			d.Record().Release()
		}
		n++
	}
}

// pageview is the event of cmd/bench.
func pageview(tb testing.TB) *schemas.Event {
	set, err := schemas.LoadDir("../../cmd/bench/views")
	if err != nil {
		tb.Fatal(err)
	}
	return set.Event("pageview")
}

// pageviews makes messages of page views as cmd/bench's producers send them: random ids, users and
// pages of which few make up most, latencies to the microsecond. It returns their bytes too.
func pageviews(messages, perMessage int) (all [][]byte, size int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2025, 3, 3, 12, 0, 0, 0, time.UTC)
	countries, devices := []string{"US", "IN", "BR", "GB", "DE", "FR", "JP"}, []string{"desktop", "mobile", "tablet", "tv"}
	statuses := []int{200, 200, 200, 200, 200, 200, 200, 301, 404, 500}
	for range messages {
		var b []byte
		for range perMessage {
			at = at.Add(time.Microsecond * time.Duration(rnd.IntN(20)))
			b = fmt.Appendf(b, `{"id":"%016x","time":"%s","user":%d,"page":"/page/%d","country":"%s","device":"%s","status":%d,"latency":%s,"amount":%d.%02d}`+"\n",
				rnd.Uint64(), at.Format("2006-01-02 15:04:05.000000"), int(1e6*math.Pow(rnd.Float64(), 4)), int(math.Exp(rnd.Float64()*math.Log(10_000))),
				countries[rnd.IntN(len(countries))], devices[rnd.IntN(len(devices))], statuses[rnd.IntN(len(statuses))],
				strconv.FormatFloat(math.Round(1000*math.Exp(4.5+0.9*rnd.NormFloat64())+1)/1000, 'f', -1, 64), rnd.IntN(200), rnd.IntN(100))
		}
		all, size = append(all, b), size+len(b)
	}
	return all, size
}

// BenchmarkAppendPageview decodes messages of 200 page views of nine fields; every 64k a record is taken.
// One iteration is one event.
func BenchmarkAppendPageview(b *testing.B) {
	const perMessage = 200
	messages, size := pageviews(400, perMessage)
	at := time.Date(2025, 3, 3, 12, 0, 0, 0, time.UTC)
	d := decode.New(pageview(b), decode.Limits{})
	b.SetBytes(int64(size / len(messages) / perMessage))
	b.ReportAllocs()
	b.ResetTimer()
	began := processor()
	for n := 0; n < b.N; n += perMessage {
		if rejects := d.Append(messages[n/perMessage%len(messages)], 1, at); len(rejects) > 0 {
			b.Fatal(rejects[0].Reason)
		}
		if d.Rows() >= 65536 {
			d.Record().Release()
		}
	}
	b.ReportMetric(float64(processor()-began)/float64(b.N), "cpu-ns/op")
}

// processor is the processor time that the process has used: what counts where others run, too.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
