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

// TestFaults is the brief form: some random faults, and a death at each crash place of everyday life. What
// needs scenes takes minutes: `make faults` plays them too.
func TestFaults(t *testing.T) {
	p := plan{n: 8, seed: uint64(rand.Uint32()) + 1, short: true, places: true, brief: true}
	ok, err := p.run(t.Context(), t.Output())
	if err != nil {
		t.Error(err)
	}
	if !ok {
		t.Errorf("repeat with: %s", p.repeat())
	}
}
