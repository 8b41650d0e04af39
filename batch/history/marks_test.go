package history

import (
	"fmt"
	"testing"
)

// TestMarksStayBounded commits more txns than are remembered, several with each commit, and finds every
// version by its txn all the same.
func TestMarksStayBounded(t *testing.T) {
	l := script(newRand(9), 1)
	table := mustOpen(t, t.TempDir(), l.cuts[0].Definitions.Event("a"))
	const perCommit = 512
	commits := 3 * maxMarks / perCommit
	for n := range commits {
		c := &change{operation: "STREAMING UPDATE", expect: map[string]int64{}}
		for k := range perCommit {
			app := fmt.Sprintf("%s/%d", testApp, k)
			if n > 0 {
				c.expect[app] = int64(n)
			}
			c.txns = append(c.txns, txn{AppID: app, Version: int64(n + 1)})
		}
		if _, err := table.commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if len(table.marks) > maxMarks {
			t.Fatalf("%d marks after %d commits; want %d at most", len(table.marks), n+1, maxMarks)
		}
	}
	for n := range commits {
		for _, k := range []int{0, perCommit - 1} {
			s, err := table.SnapshotAt(t.Context(), fmt.Sprintf("%s/%d", testApp, k), uint64(n+1))
			if err != nil || s.Version != int64(n+1) {
				t.Errorf("txn %d of commit %d: %+v, %v", k, n+1, s, err)
			}
		}
	}
}
