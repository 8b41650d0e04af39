package identity_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

const day = int64(24 * 60 * 60 * 1e6)

func eventOf(id schemas.Kind) *schemas.Event {
	return &schemas.Event{Name: "e", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: id}}, {Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "x", Type: schemas.Type{Kind: schemas.Float64}, Optional: true},
	}}
}

// A row is an event; null is of x.
type row struct {
	id   int64
	time int64
	x    float64
	null bool
}

// block is the rows as a block of events, ids as text or as numbers.
func block(ev *schemas.Event, rows []row) *column.Block {
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	for i, r := range rows {
		if f, ok := b.Field(0).(*array.StringBuilder); ok {
			f.Append(fmt.Sprint(r.id))
		} else {
			b.Field(0).(*array.Int64Builder).Append(r.id)
		}
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(r.time))
		if r.null {
			b.Field(2).AppendNull()
		} else {
			b.Field(2).(*array.Float64Builder).Append(r.x)
		}
		b.Field(3).(*array.Int64Builder).Append(int64(i / 3))
		b.Field(4).(*array.Int32Builder).Append(int32(i % 3))
	}
	return column.NewReader().Block(b.NewRecord())
}

func drawRows(r *rapid.T) []row {
	return rapid.SliceOf(rapid.Custom(func(r *rapid.T) row {
		return row{
			id:   rapid.Int64Range(-3, 3).Draw(r, "id"),
			time: rapid.Int64Range(-2, 2).Draw(r, "day")*day + rapid.SampledFrom([]int64{-1, 0, 1, day - 1}).Draw(r, "time"),
			x:    rapid.SampledFrom([]float64{0, 1}).Draw(r, "x"), null: rapid.Bool().Draw(r, "null"),
		}
	})).Draw(r, "rows")
}

// Fingerprints are equal exactly where type, id and UTC date are.
func TestOf(t *testing.T) {
	for _, kind := range []schemas.Kind{schemas.String, schemas.Int64} {
		ev, other := eventOf(kind), eventOf(kind)
		other.Name = "f"
		rapid.Check(t, func(r *rapid.T) {
			rows := drawRows(r)
			b := block(ev, rows)
			got, err := identity.Of(nil, ev, b)
			if err != nil {
				r.Fatal(err)
			}
			foreign, err := identity.Of(nil, other, b)
			if err != nil {
				r.Fatal(err)
			}
			for i, x := range rows {
				if got[i] == (identity.Fingerprint{}) || got[i] == foreign[i] {
					r.Fatalf("row %d: fingerprint %v; of another type %v", i, got[i], foreign[i])
				}
				for j, y := range rows {
					want := x.id == y.id && identity.Date(x.time) == identity.Date(y.time)
					if (got[i] == got[j]) != want {
						r.Fatalf("rows %+v and %+v: same %t; want %t", x, y, got[i] == got[j], want)
					}
				}
			}
		})
	}
}

func TestDate(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		date := rapid.Int32Range(-100_000, 100_000).Draw(r, "date")
		at := int64(date)*day + rapid.Int64Range(0, day-1).Draw(r, "time of day")
		if got := identity.Date(at); got != date {
			r.Fatalf("got %d; want %d", got, date)
		}
	})
}

// Payloads are equal exactly where all declared fields are.
func TestPayload(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rows, ev := drawRows(r), eventOf(schemas.String)
		b := block(ev, rows)
		payloads, err := identity.PayloadsOf(ev, b)
		if err != nil {
			r.Fatal(err)
		}
		hashes := make([]uint64, len(rows))
		for i, x := range rows {
			if id := payloads.ID(i); id != fmt.Sprint(x.id) {
				r.Fatalf("row %d has id %q; want %d", i, id, x.id)
			}
			hashes[i] = payloads.Hash(i)
		}
		for i, x := range rows {
			for j, y := range rows {
				if x.null {
					x.x = 0
				}
				if y.null {
					y.x = 0
				}
				if (hashes[i] == hashes[j]) != (x == y) {
					r.Fatalf("rows %+v and %+v: same %t", x, y, hashes[i] == hashes[j])
				}
			}
		}
	})
}

// see keeps in a map the first place of each fingerprint, as the batch does. It returns the first
// place known, and whether what was known before stands behind it.
func see(m *identity.Map[identity.Place], print identity.Fingerprint, at identity.Place) (first identity.Place, moved bool) {
	before := m.Len()
	if taken := m.Warm([]identity.Fingerprint{print, print}); taken != 0 && taken != 2 || taken == 2 && before == 0 {
		panic(fmt.Sprintf("%d places of two are taken, in a map of %d", taken, before))
	}
	p, fresh := m.Put(print)
	if moved = !fresh && at.Before(*p); fresh || moved {
		*p = at
	}
	return *p, moved
}

// A table knows of every fingerprint the place that wins, in whatever order it sees them.
func TestTable(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var table identity.Map[identity.Place]
		want := make(map[identity.Fingerprint]identity.Place)
		for range rapid.IntRange(0, 3000).Draw(r, "n") {
			n := rapid.Uint64Range(1, 1000).Draw(r, "print")
			print := identity.Fingerprint{Hi: n % 3, Lo: n << 40} // many meet in one slot
			at := identity.Place{Seq: rapid.Int64Range(0, 5).Draw(r, "seq"), Row: rapid.Int32Range(0, 5).Draw(r, "row"), Source: rapid.Uint32Range(0, 2).Draw(r, "source")}
			old, known := want[print]
			if !known || at.Before(old) {
				want[print] = at
			}
			first, moved := see(&table, print, at)
			if first != want[print] || moved != (known && at.Before(old)) {
				r.Fatalf("saw %v at %v after %v (%t): got %v, moved %t", print, at, old, known, first, moved)
			}
		}
		if table.Len() != len(want) {
			r.Fatalf("holds %d; want %d", table.Len(), len(want))
		}
		for print, place := range want {
			if got := table.Get(print); got == nil || *got != place {
				r.Fatalf("%v is first at %v; want %v", print, got, place)
			}
		}
		if table.Get(identity.Fingerprint{Lo: 5}) != nil {
			r.Fatal("knows what it never saw")
		}
	})
}

// A map that was given room holds as much and no more, whatever it held before.
func TestMapRoom(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var m identity.Map[uint64]
		for range rapid.IntRange(1, 4).Draw(r, "rounds") {
			room := rapid.IntRange(1, 500).Draw(r, "room")
			m.Reset(room)
			for i := range uint64(room) {
				v, fresh := m.Put(identity.Fingerprint{Lo: i << 50, Hi: i + 1})
				if v == nil || !fresh || *v != 0 {
					r.Fatalf("room for %d: no place for fingerprint %d", room, i)
				}
				*v = i
			}
			more := uint64(room) + 1000
			if v, _ := m.Put(identity.Fingerprint{Lo: more, Hi: more}); v != nil || m.Len() != room {
				r.Fatalf("room for %d: holds %d and takes one more", room, m.Len())
			}
			for i := range uint64(room) {
				if v, fresh := m.Put(identity.Fingerprint{Lo: i << 50, Hi: i + 1}); v == nil || fresh || *v != i {
					r.Fatalf("room for %d: fingerprint %d is lost", room, i)
				}
			}
		}
	})
}

// What an event takes, as the doc comment of Map says: full, with room for just so many; and with
// doubling.
func TestMapBytes(t *testing.T) {
	const n = 1_000_000
	var first identity.Map[identity.Place]
	var twin identity.Map[[3]uint64]
	var grown identity.Map[uint64]
	first.Reset(n)
	twin.Reset(n)
	fullest, emptiest := math.Inf(1), 0.
	for i := range uint64(n) {
		print := identity.Fingerprint{Lo: rand.Uint64(), Hi: i}
		first.Put(print)
		twin.Put(print)
		grown.Put(print)
		if each := float64(grown.Bytes()) / float64(grown.Len()); i > 10_000 {
			fullest, emptiest = min(fullest, each), max(emptiest, each)
		}
	}
	for _, m := range []struct {
		name  string
		got   float64
		bytes float64
	}{
		{"batch", float64(first.Bytes()) / n, 43},
		{"batch, events with duplicates", float64(twin.Bytes()) / n, 54},
		{"speed, full", fullest, 32},
		{"speed, doubled", emptiest, 64},
	} {
		t.Logf("%s: %.1f bytes an event", m.name, m.got)
		if m.got > m.bytes+0.01 || m.got < m.bytes-1 {
			t.Errorf("%s: %.2f bytes an event; want %v", m.name, m.got, m.bytes)
		}
	}
	if room := identity.Room[identity.Place](first.Bytes()); room < n || room > n+2 {
		t.Errorf("%d bytes have room for %d; want %d", first.Bytes(), room, n)
	}
}

func BenchmarkOf(b *testing.B) {
	for _, kind := range []schemas.Kind{schemas.String, schemas.Int64} {
		b.Run(schemas.Type{Kind: kind}.String(), func(b *testing.B) {
			rows := make([]row, 64<<10)
			for i := range rows {
				rows[i] = row{id: rand.Int64(), time: rand.Int64N(1e15)}
			}
			ev := eventOf(kind)
			block := block(ev, rows)
			prints, err := identity.Of(nil, ev, block)
			for b.Loop() {
				prints, err = identity.Of(prints[:0], ev, block)
			}
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(rows)*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
