package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"watershed/schemas"
)

func TestPrintAudits(t *testing.T) {
	audits := []schemas.Audit{
		{View: "days", Build: 12, Baseline: 11, Groups: 31, Equal: 31},
		{View: "delays", Build: 12, Baseline: 11, Skipped: "build 11, live until now, does not cover this definition"},
		{View: "sites", Build: 12, Baseline: 11, Groups: 1200, Equal: 1190, Explained: 9, Drifted: 1,
			LateDuplicates: 40, ImportDuplicates: 3, Imports: 500, Conflicts: 2, Largest: 41, LargestShare: 41. / 55, Gated: true,
			First: []schemas.Conflict{{Type: "hit", ID: "17", Date: "2024-05-01", Kept: schemas.Origin{Seq: 5, Row: 2}, Dropped: schemas.Origin{Seq: 9}},
				{Type: "hit", ID: "18", Date: "2024-05-01", Kept: schemas.Origin{Row: 7, File: "a.parquet"}, Dropped: schemas.Origin{Seq: 6, Row: 1}}},
			Worst: []schemas.AuditGroup{{Group: map[string]string{"site": "a b", "hour": "10"}, Measure: "hits", Baseline: "55", Batch: "14", Drift: 41}}},
		{View: "total", Build: 11, Baseline: 10, Groups: 1, Explained: 1, LateDuplicates: 2, AtMost: true},
	}
	want := `build 12 against build 11
  GROUPS  EQUAL  EXPLAINED  DRIFTED  VIEW
      31     31          0        0  days
       -      -          -        -  delays: not compared, build 11, live until now, does not cover this definition
    1200   1190          9        1  sites

sites
  late duplicates removed: 40 (the speed layer had forgotten the first, and counted them)
  import duplicates removed: 3
  imported events: 500
  conflicts: 2 (same type, id and date, another payload; the first one counts)
    hit 17 on 2024-05-01: kept position 5 row 2, dropped position 9 row 0
    hit 18 on 2024-05-01: kept row 7 of an import (a.parquet), dropped position 6 row 1
  drifted: 1 group, by up to 41 (74.5% of the value)
    hour=10 site=a b: hits was shown as 55, is 14
  gated: the build was not made live; ` + "`watershed batch --gate off`" + ` makes one live in spite of the drift

build 11 against build 10
  GROUPS  EQUAL  EXPLAINED  DRIFTED  VIEW
       1      0          1        0  total

total
  late duplicates removed: at most 2 (the speed layer had forgotten the first, and counted them)
`
	var got strings.Builder
	if err := printAudits(&got, audits); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var drift driftError
	if err := newestDrift(audits); !errors.As(err, &drift) {
		t.Errorf("got %v; want drift", err)
	}
	if err := newestDrift(audits[3:]); err != nil {
		t.Errorf("got %v; want none: build 11 has no drift", err)
	}
	var use usageError
	if _, err := auditsOfView(audits, "nowhere"); !errors.As(err, &use) || !strings.Contains(err.Error(), "days, delays, sites, total") {
		t.Errorf("got %v; want the views that there are", err)
	}
}
