package identity

import (
	"math/bits"
	"unsafe"
)

// A Map holds a value for each fingerprint. It is an open addressing table, at most three
// quarters full, in one piece of memory without pointers into it. The zero Map is empty and
// doubles when it must; one that was Reset never grows.
//
// An entry is 16 bytes and the value, and TestMapBytes measures what that comes to. The batch,
// with a Place of 16 bytes and room for just the rows of a date, takes 43 bytes an event; for
// those that have duplicates besides 54 (24 bytes to compare payloads).
type Map[V any] struct {
	entries []entry[V]
	n       int
	bounded bool
}

type entry[V any] struct {
	print Fingerprint // zero: free
	value V
}

// Room is how many fingerprints a Map of V holds in so many bytes; at least one.
func Room[V any](bytes int64) int {
	return max(1, int(bytes/int64(unsafe.Sizeof(entry[V]{})))*3/4)
}

// Reset empties the map and gives it room for n fingerprints and no more. It keeps its memory
// where that is enough.
func (m *Map[V]) Reset(n int) {
	size := (4*n + 2) / 3
	if cap(m.entries) < size {
		m.entries = nil // so that the old ones can go before the new ones come
		m.entries = make([]entry[V], size)
	} else {
		m.entries = m.entries[:size]
		clear(m.entries)
	}
	m.n, m.bounded = 0, true
}

// Len is the number of fingerprints held.
func (m *Map[V]) Len() int { return m.n }

// Bytes is the memory held.
func (m *Map[V]) Bytes() int64 { return int64(cap(m.entries)) * int64(unsafe.Sizeof(entry[V]{})) }

// Put returns where the value of a fingerprint is; the pointer is good until the next Put. If
// fresh, the fingerprint was not held, and the value is zero. It is nil if the fingerprint is
// not held and there is no room for it.
func (m *Map[V]) Put(print Fingerprint) (v *V, fresh bool) {
	if 4*(m.n+1) > 3*len(m.entries) {
		if m.bounded {
			return m.Get(print), false
		}
		m.grow()
	}
	e := m.slot(print)
	if fresh = e.print == (Fingerprint{}); fresh {
		e.print = print
		m.n++
	}
	return &e.value, fresh
}

// Get returns where the value of a fingerprint is; nil if it is not held.
func (m *Map[V]) Get(print Fingerprint) *V {
	if m.n == 0 {
		return nil
	}
	if e := m.slot(print); e.print == print {
		return &e.value
	}
	return nil
}

// Warm reads where the fingerprints' values are or would be, and returns how many of these places are taken. Put and
// Get of a big map wait for memory; after Warm of a few hundred fingerprints they do not, since the reads of
// Warm do not wait for each other (a third less time to look up the fingerprints of three million events).
//
//go:noinline
func (m *Map[V]) Warm(prints []Fingerprint) (taken int) {
	for _, print := range prints {
		at, _ := bits.Mul64(print.Lo, uint64(len(m.entries)))
		if len(m.entries) > 0 && m.entries[at].print.Lo|m.entries[at].print.Hi != 0 {
			taken++
		}
	}
	return taken
}

func (m *Map[V]) slot(print Fingerprint) *entry[V] {
	at, _ := bits.Mul64(print.Lo, uint64(len(m.entries)))
	for {
		if e := &m.entries[at]; e.print == print || e.print == (Fingerprint{}) {
			return e
		}
		if at++; at == uint64(len(m.entries)) {
			at = 0
		}
	}
}

func (m *Map[V]) grow() {
	old := m.entries
	m.entries = make([]entry[V], max(1024, 2*len(old)))
	for _, e := range old {
		if e.print != (Fingerprint{}) {
			*m.slot(e.print) = e
		}
	}
}
