package main

import (
	"math/rand/v2"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	child()
	os.Exit(m.Run())
}

// TestFaults is the short form: 8 random faults, and every crash place once.
func TestFaults(t *testing.T) {
	p := plan{n: 8, seed: uint64(rand.Uint32()) + 1, short: true, places: true}
	ok, err := p.run(t.Context(), t.Output())
	if err != nil {
		t.Error(err)
	}
	if !ok {
		t.Errorf("repeat with: %s", p.repeat())
	}
}
