package identity_test

import (
	"testing"
	"time"

	"watershed/internal/bounded"
	"watershed/schemas"
	"watershed/schemas/identity"
)

// FuzzTable plays sightings, five bytes each, against a Go map: few identities and places, so that they
// meet, and fingerprints that all want the same entries of the table.
func FuzzTable(f *testing.F) {
	f.Add([]byte("aaaaabaaaacaaaaaaaab"))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 9, 1, 1, 0, 0, 8, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		type sighting struct {
			print identity.Fingerprint
			at    identity.Place
		}
		var seen []sighting
		for ; len(data) >= 5; data = data[5:] {
			seen = append(seen, sighting{
				identity.Fingerprint{Lo: 1 + uint64(data[0])<<32, Hi: uint64(data[0])},
				identity.Place{Seq: int64(int8(data[1])), Row: int32(data[2]), Source: uint32(data[3])<<8 | uint32(data[4])},
			})
		}
		var table identity.Map[identity.Place]
		first := map[identity.Fingerprint]identity.Place{}
		bounded.Run(t, func() {
			for _, s := range seen {
				before, known := first[s.print]
				want, wantMoved := before, false
				if !known || s.at.Before(before) {
					want, wantMoved = s.at, known
				}
				first[s.print] = want
				if got, moved := see(&table, s.print, s.at); got != want || moved != wantMoved {
					t.Fatalf("%+v at %+v: got %+v, %v; want %+v, %v", s.print, s.at, got, moved, want, wantMoved)
				}
			}
		})
		if table.Len() != len(first) {
			t.Fatalf("the table holds %d; want %d", table.Len(), len(first))
		}
		for print, want := range first {
			if got := table.Get(print); got == nil || *got != want {
				t.Fatalf("%+v: got %+v; want %+v", print, got, want)
			}
		}
	})
}

// FuzzOf takes the fingerprints of two events: they are equal if and only if ids and dates are.
func FuzzOf(f *testing.F) {
	f.Add(int64(1), int64(-1), int64(1), int64(-day))
	f.Add(int64(0), int64(0), int64(-1<<63), int64(day))
	f.Fuzz(func(t *testing.T, id1, time1, id2, time2 int64) {
		for _, kind := range []schemas.Kind{schemas.String, schemas.Int64} {
			ev := eventOf(kind)
			var prints []identity.Fingerprint
			bounded.Run(t, func() {
				var err error
				if prints, err = identity.Of(nil, ev, block(ev, []row{{id: id1, time: time1}, {id: id2, time: time2}})); err != nil {
					t.Fatal(err)
				}
			})
			date := func(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.DateOnly) }
			want := id1 == id2 && date(time1) == date(time2)
			if got := prints[0] == prints[1]; got != want {
				t.Fatalf("ids %d, %d on %s, %s: got %v; want %v", id1, id2, date(time1), date(time2), got, want)
			}
		}
	})
}
