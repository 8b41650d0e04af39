package view

import "watershed/schemas"

// Merge takes the groups of another fold of the same plan over, which is empty then, as after a flush. What
// the two would flush, merged, is what this one flushes: the same bytes, but for sums of floats, which
// depend on the order.
func (f *Fold) Merge(other *Fold) {
	if other.groups > f.groups {
		*f, *other = *other, *f // it is cheaper to add the few to the many
	}
	f.rows += other.rows
	if other.groups > 0 {
		groups := f.numberOf(other)
		for i, m := range f.measures {
			m.Grow(f.groups)
			m.Merge(groups, other.measures[i])
		}
	}
	other.reset()
}

// numberOf gives each group of another fold its number here: what number does for rows, by the numbers that
// the other has already given.
func (f *Fold) numberOf(other *Fold) []int32 {
	if len(f.keys) == 0 {
		f.groups = 1
		return []int32{0}
	}
	groups := f.keys[0].numberOf(other.keys[0])
	f.groups = int(f.keys[0].n)
	for i := range f.pairs {
		k, p, from := f.keys[i+1], &f.pairs[i], &other.pairs[i]
		values := k.numberOf(other.keys[i+1])
		pairs := make([]int32, from.n)
		var rights [chunk]int32
		for at := 0; at < from.n; at += chunk {
			part := pairs[at:min(at+chunk, from.n)]
			for j := range part {
				left, right := from.of(int32(at + j))
				part[j], rights[j] = groups[left], values[right]
			}
			p.number(part, rights[:len(part)], f.groups, int(k.n))
		}
		groups, f.groups = pairs, p.n
	}
	return groups
}

// numberOf gives each value of another key its number here.
func (k *key) numberOf(other *key) []int32 {
	out := make([]int32, other.n)
	for n := range other.n {
		switch {
		case n == other.null:
			out[n] = k.ofNull()
		case k.typ.Kind == schemas.String:
			out[n] = k.text(other.values[n].text)
		case k.typ.Kind == schemas.Decimal:
			out[n] = k.decimal(other.values[n].num)
		default:
			w := other.words[n]
			if out[n] = k.near.get(int64(w)); out[n] < 0 {
				out[n] = k.word(w)
			}
		}
	}
	return out
}
