package batch

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"watershed/batch/history"
	"watershed/schemas/view"
)

// A sliceKey names a slice by all that its states depend on: the plan, the date, and which events the
// date's files hold. A compaction leaves it as it is.
type sliceKey struct {
	now string
	// former is by the list of the files' contents, as slices were named once; empty if a compaction
	// wrote one of the files.
	former string
}

func keyOf(p *view.Plan, d date) (k sliceKey) {
	h := sha256.New()
	fmt.Fprintf(h, "slice 2\n%s\n%d\n%s\n", p.Hash, d.day, history.Content(d.files))
	k.now = hex.EncodeToString(h.Sum(nil))
	h.Reset()
	fmt.Fprintf(h, "slice 1\n%s\n%d\n", p.Hash, d.day)
	for _, f := range d.files {
		if f.AsOf > 0 {
			return k
		}
		fmt.Fprintln(h, f.Content)
	}
	k.former = hex.EncodeToString(h.Sum(nil))
	return k
}

// is tells whether a slice is registered under the key.
func (k sliceKey) is(registered string) bool {
	return registered != "" && (registered == k.now || registered == k.former)
}
