package batch

import "watershed/schemas"

// A night computes a date or two, so that its parcel, which is a partition, soon holds a living slice
// among dead ones, and there is one more each night. A parcel is thin if it has so few living slices
// and groups. When a plan has too many thin ones, their slices are computed anew, together: then they
// share a parcel that is not thin, and the old ones go as garbage. So a plan has at most thinParcels
// thin ones, besides those of kept builds, and each other parcel has its share of living slices. A
// slice is computed again once for that, as a thin parcel's slices end in one that is not.
const (
	thinSlicesBelow = 24 // less than thinParcels: what those have together is not thin
	thinGroupsBelow = insertRows / 4
	thinParcels     = 32
)

// thinSlices returns the ids of a plan's living slices that are to be computed anew, so that the
// plan has fewer parcels.
func thinSlices(living map[string]schemas.Slice) map[uint64]bool {
	type content struct {
		ids    []uint64
		groups uint64
	}
	parcels := make(map[uint64]content)
	for _, s := range living {
		of := s.ID >> schemas.ParcelBits
		c := parcels[of]
		parcels[of] = content{append(c.ids, s.ID), c.groups + s.Groups}
	}
	out, n := make(map[uint64]bool), 0
	for _, c := range parcels {
		if len(c.ids) >= thinSlicesBelow || c.groups >= thinGroupsBelow {
			continue
		}
		n++
		for _, id := range c.ids {
			out[id] = true
		}
	}
	if n <= thinParcels {
		return nil
	}
	return out
}
