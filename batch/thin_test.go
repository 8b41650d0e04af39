package batch

import (
	"fmt"
	"testing"

	"watershed/schemas"
)

// Through a year of nights that compute yesterday and today, the parcels with living slices stay few,
// and no night but one in a while computes more than its dates.
func TestThinParcelsAreJoined(t *testing.T) {
	living := make(map[string]schemas.Slice) // by date
	again, most := 0, 0
	for night := uint64(1); night <= 365; night++ {
		thin := thinSlices(living)
		n := uint64(0)
		put := func(date string) {
			living[date] = schemas.Slice{ID: schemas.SliceID(night, 1+n/insertSlices, n%insertSlices), Groups: 24}
			n++
		}
		for date, s := range living {
			if thin[s.ID] {
				put(date)
				again++
			}
		}
		put(fmt.Sprint(night - 1))
		put(fmt.Sprint(night))
		parcels := make(map[uint64]bool)
		for _, s := range living {
			parcels[s.ID>>schemas.ParcelBits] = true
		}
		most = max(most, len(parcels))
	}
	if limit := thinParcels + 2 + 365/thinSlicesBelow; most > limit {
		t.Errorf("%d parcels with living slices; want at most %d", most, limit)
	}
	if again > 2*365 {
		t.Errorf("%d slices were computed again to join parcels; want at most two for each night", again)
	}
	big := make(map[string]schemas.Slice)
	for n := range uint64(2 * thinParcels) {
		big[fmt.Sprint(n)] = schemas.Slice{ID: schemas.SliceID(n, 1, 0), Groups: thinGroupsBelow}
	}
	if thin := thinSlices(big); len(thin) > 0 {
		t.Errorf("%d slices of parcels with many groups are to be computed again", len(thin))
	}
}
