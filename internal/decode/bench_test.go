package decode_test

import (
	"fmt"
	"strings"
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
