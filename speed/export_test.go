package speed

import (
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
	for i := range events {
		w.seen(identity.Fingerprint{Lo: r.Uint64(), Hi: r.Uint64()}, uint64(i), 0, c)
	}
	return w.size()
}

// DefaultHorizonRows is the default of Config.HorizonRows.
func DefaultHorizonRows() int {
	var c Config
	c.defaults()
	return c.HorizonRows
}
