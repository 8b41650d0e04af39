package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A deck deals faults: all of them in a drawn order, then again in another.
type deck struct {
	r     *rand.Rand
	all   []fault
	left  []fault
	disks bool // there are disks to fill
}

func newDeck(r *rand.Rand, only string, t *tally) (*deck, error) {
	d := &deck{r: r}
	err := canMount()
	d.disks = err == nil
	if !d.disks {
		t.say("SKIPPED: full disks. They need root and the right to mount: %v", err)
	}
	for _, f := range allFaults() {
		if strings.HasPrefix(f.name, only) && (d.disks || !f.disk) {
			d.all = append(d.all, f)
		}
	}
	if len(d.all) == 0 {
		return nil, fmt.Errorf("no fault begins with %q", only)
	}
	return d, nil
}

// draw deals the next n faults.
func (d *deck) draw(n int) (hand []fault) {
	for range n {
		hand = append(hand, d.next())
	}
	return hand
}

func (d *deck) next() fault {
	if len(d.left) == 0 {
		for _, j := range d.r.Perm(len(d.all)) {
			d.left = append(d.left, d.all[j])
		}
	}
	f := d.left[0]
	d.left = d.left[1:]
	return f
}
