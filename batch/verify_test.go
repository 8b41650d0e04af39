package batch_test

import (
	"fmt"
	"strings"
	"testing"

	"watershed/batch"
)

// A verification finds what is not as history says, and leaves everything as it is.
func TestVerify(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.importFile(hits(0, 100, 1, 0) + hits(100, 200, 2, 0) + hits(50, 60, 1, 0))
	w.fold()
	w.batch(nil)
	w.publish(hits(200, 230, 2, 0)) // behind the build
	w.level()
	verify := func() *batch.VerifyReport {
		t.Helper()
		scratch, err := w.db.Scratch(t.Context())
		w.check(err)
		r, err := batch.Verify(t.Context(), w.db, scratch, w.config())
		w.check(err)
		w.check(scratch.Drop(t.Context()))
		return r
	}
	r := verify()
	if !r.Sound() || len(r.Views) != len(w.plans()) {
		t.Errorf("%+v; want every view sound", r)
	}
	for _, v := range r.Views {
		if v.Slices != 2 || v.Values.Groups == 0 || v.Skipped != "" {
			t.Errorf("%+v; want both dates compared", v)
		}
	}
	sites := w.plans()[0]
	w.exec(fmt.Sprintf("ALTER TABLE %s.%s__batch UPDATE n = n + 1 WHERE site = 'site 4' SETTINGS mutations_sync = 1", w.name, sites.ID()))
	r = verify()
	for _, v := range r.Views {
		bad := v.View == "sites"
		if found := strings.Join(v.Problems, " "); bad != (found != "") || bad && !strings.Contains(found, "site 4") {
			t.Errorf("%+v; want that n of site 4 differs and nothing else", v)
		}
	}
	w.batch(func(c *batch.Config) { c.Rebuild, c.Replace = true, true })
	w.exact()
	if r := verify(); !r.Sound() {
		t.Errorf("%+v; want every view sound again", r)
	}
}
