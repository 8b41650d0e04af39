package speed

import (
	"fmt"
	"math/rand/v2"
	"time"

	"watershed/schemas"
	"watershed/schemas/identity"
)

// ApartBehind is how many messages behind a plan gets a lane of its own.
const ApartBehind = apartBehind

// Generations is the number of tables of a horizon, besides the youngest.
const Generations = generations

// WindowSize is how many events, and bytes, a window of so many rows holds after so many different
// events.
func WindowSize(rows, events int) (held int, bytes int64) {
	w, r, c := newWindow(time.Hour, rows), rand.New(rand.NewPCG(1, 2)), new(schemas.Chunk)
	w.turn(c)
	for range events {
		w.seen(identity.Fingerprint{Lo: r.Uint64(), Hi: r.Uint64()}, c)
	}
	return w.size()
}

// DefaultHorizonRows is the default of Config.HorizonRows.
func DefaultHorizonRows() int {
	var c Config
	c.defaults()
	return c.HorizonRows
}

// CheckPrints adds so many fingerprints in each of several generations, half of them known ones, drops old generations as
// a window does, and says what a set that never forgets would have said otherwise.
func CheckPrints(most int, perGeneration []int, seed uint64) error {
	p, r := newPrints(most), rand.New(rand.NewPCG(seed, 0))
	known := make(map[identity.Fingerprint]uint32) // and the generation
	var all []identity.Fingerprint
	for g, n := range perGeneration {
		age := uint32(g%ages + 1)
		if g >= generations {
			old := uint32((g-generations)%ages + 1)
			p.drop(old)
			for print, a := range known {
				if a == old {
					delete(known, print)
				}
			}
		}
		for range n {
			print := identity.Fingerprint{Lo: r.Uint64(), Hi: r.Uint64()}
			if len(all) > 0 && r.IntN(2) == 0 {
				print = all[r.IntN(len(all))]
			} else {
				all = append(all, print)
			}
			_, want := known[print]
			p.touch(print)
			if got := p.add(print, age); got != want {
				return fmt.Errorf("generation %d: known %t, want %t", g, got, want)
			}
			if !want {
				known[print] = age
			}
		}
		if held, _ := p.size(); held != len(known) {
			return fmt.Errorf("generation %d: %d fingerprints, want %d", g, held, len(known))
		}
	}
	return nil
}

// FullWindow returns a function that lets a full window of default size see so many new events.
func FullWindow() func(n int) {
	w, r, c := newWindow(time.Hour, DefaultHorizonRows()), rand.New(rand.NewPCG(1, 2)), new(schemas.Chunk)
	w.turn(c)
	add := func(n int) {
		w.prints = w.prints[:0]
		for range n {
			w.prints = append(w.prints, identity.Fingerprint{Lo: r.Uint64(), Hi: r.Uint64()})
		}
		w.look(c)
	}
	for held := 0; held < DefaultHorizonRows()*5/4; held += 1 << 14 {
		add(1 << 14)
	}
	return add
}
