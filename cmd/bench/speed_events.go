package main

import (
	"strconv"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
)

// A stream is events as they come from producers: NDJSON, one behind the other.
type stream struct {
	text    []byte
	ends    []int // where each event ends in text
	markers int   // events among them that every view shows under keys of their own
}

// A marker is an event whose keys no other event has, so that views tell cheaply how many they show.
const (
	markerCountry = "ZZ"
	markerPage    = "/marker"
	markerDevice  = "marker"
	markerUser    = users
)

// streamed draws events whose times lie step apart, from noon of the first date on, as those of a live
// site do at a rate of 1/step; lateness lets Late of them be up to an hour older. With every > 0 each
// event of that number is a marker, the last one first.
func (t Traffic) streamed(d *dataset, step time.Duration, every int) *stream {
	t.Days, t.Duplicates = 1, 0
	rec := t.generate(d.event, firstDate).record
	s := &stream{text: make([]byte, 0, 190*t.Events), ends: make([]int, t.Events)}
	coded := func(i int) func(row int) string {
		c := rec.Column(i).(*array.Dictionary)
		names := c.Dictionary().(*array.String)
		return func(row int) string { return names.Value(c.GetValueIndex(row)) }
	}
	id, user := rec.Column(0).(*array.String), rec.Column(2).(*array.Int64)
	page, country, device := coded(3), coded(4), coded(5)
	status, latency := rec.Column(6).(*array.Int64), rec.Column(7).(*array.Float64)
	amount := rec.Column(8).(*array.Decimal128)
	noon := time.Unix(int64(firstDate)*86_400, 0).UTC().Add(12 * time.Hour)
	late := int(1 / max(t.Late, 1e-9))
	for row := range t.Events {
		at := noon.Add(time.Duration(row) * step)
		if row%late == late-1 {
			at = at.Add(-time.Duration(uint64(row)*2_654_435_761%3600) * time.Second)
		}
		e := event{id: id.Value(row), at: at, user: user.Value(row), page: page(row), country: country(row), device: device(row),
			status: status.Value(row), latency: latency.Value(row), amount: amount.Value(row).LowBits()}
		if every > 0 && (row+1)%every == 0 {
			s.markers++
			e.user, e.page, e.country, e.device, e.status, e.at = markerUser, markerPage, markerCountry, markerDevice, 500, noon.Add(time.Duration(row)*step)
		}
		s.text = e.append(s.text)
		s.ends[row] = len(s.text)
	}
	return s
}

type event struct {
	id                    string
	at                    time.Time
	user, status          int64
	page, country, device string
	latency               float64
	amount                uint64 // in cents
}

// append writes the event as a line of JSON. Its time is in the form that ClickHouse reads fastest; ours
// reads it as fast as any other.
func (e *event) append(b []byte) []byte {
	b = append(append(b, `{"id":"`...), e.id...)
	b = e.at.AppendFormat(append(b, `","time":"`...), "2006-01-02 15:04:05.000000")
	b = strconv.AppendInt(append(b, `","user":`...), e.user, 10)
	b = append(append(b, `,"page":"`...), e.page...)
	b = append(append(b, `","country":"`...), e.country...)
	b = append(append(b, `","device":"`...), e.device...)
	b = strconv.AppendInt(append(b, `","status":`...), e.status, 10)
	b = strconv.AppendFloat(append(b, `,"latency":`...), e.latency, 'f', -1, 64)
	b = strconv.AppendUint(append(b, `,"amount":`...), e.amount/100, 10)
	return append(b, '.', byte('0'+e.amount/10%10), byte('0'+e.amount%10), '}', '\n')
}

func (s *stream) len() int { return len(s.ends) }

// lines are events from..to-1.
func (s *stream) lines(from, to int) []byte {
	begin := 0
	if from > 0 {
		begin = s.ends[from-1]
	}
	return s.text[begin:s.ends[min(to, len(s.ends))-1]]
}

// bytesPerEvent is how long a line is on average.
func (s *stream) bytesPerEvent() float64 { return float64(len(s.text)) / float64(len(s.ends)) }
