package view_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"watershed/schemas"
	"watershed/schemas/view"
)

func compile(t *testing.T, where string, dims, measures map[string]string) (*view.Plan, error) {
	t.Helper()
	v := &schemas.View{Name: "v", From: "reading", Dimensions: definitions(dims), Measures: definitions(measures)}
	v.Where.Text = where
	return view.Compile(v, reading())
}

// Equal hashes mean equal states: whatever changes them changes the hash, spaces do not, and a
// plan that came through a cut's JSON is the same plan.
func TestHash(t *testing.T) {
	hash := func(where string, dims, measures map[string]string) string {
		t.Helper()
		p, err := compile(t, where, dims, measures)
		if err != nil {
			t.Fatal(err)
		}
		if p.ID() != "v__"+p.Hash[:8] || len(p.Hash) != 64 {
			t.Fatalf("got id %s, hash %s", p.ID(), p.Hash)
		}
		return p.Hash
	}
	seen := map[string]int{}
	for i, h := range []string{
		hash("", nil, map[string]string{"n": "count()"}),
		hash("ok", nil, map[string]string{"n": "count()"}),
		hash("", nil, map[string]string{"m": "count()"}),
		hash("", nil, map[string]string{"n": "count(ok)"}),
		hash("", map[string]string{"site": "site"}, map[string]string{"n": "count()"}),
		hash("", map[string]string{"site": "tag"}, map[string]string{"n": "count()"}),
		hash("", nil, map[string]string{"n": "quantiles(level, 0.5)"}),
		hash("", nil, map[string]string{"n": "quantiles(level, 0.25)"}),
		hash("", nil, map[string]string{"n": "uniq(level)"}),
	} {
		if other, ok := seen[h]; ok {
			t.Errorf("definitions %d and %d have the same hash", other, i)
		}
		seen[h] = i
	}
	if hash("level > 3", nil, map[string]string{"n": "count()"}) != hash("  level  >3 ", nil, map[string]string{"n": "count( )"}) {
		t.Error("spaces change the hash")
	}
	set := schemas.Set{Events: []*schemas.Event{reading()}, Views: []*schemas.View{
		{Name: "v", From: "reading", Dimensions: definitions(map[string]string{"site": "site"}), Measures: definitions(map[string]string{"n": "count()"})}}}
	before, err := view.CompileSet(&set)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var back schemas.Set
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	after, err := view.CompileSet(&back)
	if err != nil {
		t.Fatal(err)
	}
	if before[0].Hash != after[0].Hash {
		t.Errorf("got hash %s of the plan from JSON; want %s", after[0].Hash, before[0].Hash)
	}
}

// All mistakes are reported at once, each with its place.
func TestMistakes(t *testing.T) {
	at := func(line int, text string) schemas.Expression {
		return schemas.Expression{Text: text, Pos: schemas.Pos{File: "v.yaml", Line: line, Col: 10}}
	}
	v := &schemas.View{Name: "v", From: "reading", Where: at(3, "plain + 1"),
		Dimensions: []schemas.Definition{{Name: "a", Expression: at(5, "nosuch")}, {Name: "b__n", Expression: at(6, "site")}},
		Measures: []schemas.Definition{
			{Name: "s", Expression: at(8, "sum(site)")},
			{Name: "b", Expression: at(9, "avg(plain)"), Pos: schemas.Pos{File: "v.yaml", Line: 9, Col: 3}},
			{Name: "q", Expression: at(10, "quantiles(plain, 1.5)")},
		}}
	elsewhere := &schemas.View{Name: "w", From: "nothing", Pos: schemas.Pos{File: "w.yaml", Line: 1, Col: 1}}
	_, err := view.CompileSet(&schemas.Set{Events: []*schemas.Event{reading()}, Views: []*schemas.View{v, elsewhere}})
	var errs schemas.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %v; want schemas.Errors", err)
	}
	for _, want := range []struct {
		file string
		line int
		say  string
	}{
		{"v.yaml", 3, "condition"}, {"v.yaml", 5, "nosuch"}, {"v.yaml", 8, "sum"}, {"v.yaml", 9, "b__n"}, {"v.yaml", 10, "level"}, {"w.yaml", 1, "nothing"},
	} {
		found := false
		for _, e := range errs {
			found = found || e.Pos.File == want.file && e.Pos.Line == want.line && strings.Contains(e.Msg, want.say)
		}
		if !found {
			t.Errorf("no mistake at %s:%d says %q: %v", want.file, want.line, want.say, err)
		}
	}
	if len(errs) != 6 {
		t.Errorf("got %d mistakes; want 6: %v", len(errs), err)
	}
	if _, err := compile(t, "", map[string]string{"site": "site"}, nil); err == nil {
		t.Error("a view without measures compiles")
	}
}

func TestInputs(t *testing.T) {
	p, err := compile(t, "level > 0", map[string]string{"hour": `bucket(time, "1h")`, "site": "site"}, map[string]string{"n": "count()", "m": "max(heat)"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(p.Inputs(), " "), "time site level heat"; got != want {
		t.Errorf("got inputs %s; want %s", got, want)
	}
	if got, want := p.Dimensions[0].Bucket.String(), "1h0m0s"; got != want {
		t.Errorf("got bucket %s; want %s", got, want)
	}
	for i, c := range p.Columns() {
		if f := p.StateSchema().Field(i); f.Name != c.Name || f.Nullable != c.Nullable {
			t.Errorf("column %d is %s in the schema; want %s", i, f.Name, c.Name)
		}
	}
}
