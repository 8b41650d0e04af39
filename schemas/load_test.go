package schemas_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/bounded"
	"watershed/schemas"
)

var update = flag.Bool("update", false, "write the golden files of what was got")

// TestLoadErrors holds what is said about each file of testdata/errors against its .golden.
func TestLoadErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no input: %v", err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		_, err = schemas.Load(fstest.MapFS{name: {Data: src}})
		var errs schemas.Errors
		if !errors.As(err, &errs) {
			t.Errorf("%s: got error %v; want schemas.Errors", file, err)
			continue
		}
		golden, got := file+".golden", err.Error()+"\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
	}
}

func TestExamples(t *testing.T) {
	set, err := schemas.Load(schemas.Examples())
	if err != nil {
		t.Fatal(err)
	}
	disk, err := schemas.LoadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	if set.Hash() != disk.Hash() {
		t.Errorf("got another hash of the embedded examples than of the files")
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	back, err := schemas.ParseSet(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != string(again) || back.Hash() != set.Hash() {
		t.Errorf("got %s; want %s", again, b)
	}
	for _, v := range set.Views {
		if set.Event(v.From) == nil || len(v.Measures) == 0 {
			t.Errorf("view %s: got from %q, %d measures", v.Name, v.From, len(v.Measures))
		}
	}
}

// TestExpressionPositions looks up, at each expression's position, its own first characters
// in the source.
func TestExpressionPositions(t *testing.T) {
	src := strings.Join([]string{
		"event: e", "id: id", "time: t", "fields: {id: string, t: timestamp, n: int64}", "---",
		"view: v", "from: e", "where: |", "    n > 0", "    && n < 9",
		"dimensions:", "  plain: n", `  double: "n + 1"`, "  single:   'n + 2'", "  folded: >-", "", "    n +", "    3",
		"measures: {c: count(), s: sum(n)}", "",
	}, "\n")
	set, err := schemas.Load(fstest.MapFS{"v.yml": {Data: []byte(src)}})
	if err != nil {
		t.Fatal(err)
	}
	v, lines := set.View("v"), strings.Split(src, "\n")
	all := append([]schemas.Definition{{Name: "where", Expression: v.Where}}, v.Dimensions...)
	for _, d := range append(all, v.Measures...) {
		p := d.Expression.Pos
		if p.Line < 1 || p.Line > len(lines) || p.Col < 1 || p.Col > len(lines[p.Line-1]) {
			t.Errorf("%s: got position %+v outside the file", d.Name, p)
			continue
		}
		first, _, _ := strings.Cut(d.Expression.Text, " ")
		if got := lines[p.Line-1][p.Col-1:]; !strings.HasPrefix(got, first) {
			t.Errorf("%s: got position %+v, at %q; want %q there", d.Name, p, got, first)
		}
	}
}

// TestUnknownFields reads what becomes of fields that are not declared; it is part of what definitions are hashed over.
func TestUnknownFields(t *testing.T) {
	load := func(line string) (*schemas.Set, error) {
		return schemas.Load(fstest.MapFS{"e.yaml": {Data: []byte("event: e\nid: id\ntime: t\nfields: {id: string, t: timestamp}\n" + line)}})
	}
	hashes := make(map[bool]string)
	for line, ignore := range map[string]bool{"": false, "unknown_fields: error\n": false, "unknown_fields: ignore\n": true} {
		set, err := load(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got := set.Event("e").IgnoreUnknown; got != ignore {
			t.Errorf("%q: ignored %t; want %t", line, got, ignore)
		}
		if was := hashes[ignore]; was != "" && was != set.Hash() {
			t.Errorf("%q: another hash than what means the same", line)
		}
		hashes[ignore] = set.Hash()
	}
	if hashes[true] == hashes[false] {
		t.Error("the hash does not say that fields are ignored")
	}
	for _, line := range []string{"unknown_fields: ignored\n", "unknown_fields: [ignore]\n", "unknown_fields:\n"} {
		if _, err := load(line); err == nil || !strings.Contains(err.Error(), "unknown_fields") {
			t.Errorf("%q: got %v; want an error that names the key", line, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	more, err := filepath.Glob("examples/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, more...) {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var set *schemas.Set
		var err error
		bounded.Run(t, func() {
			if set, err = schemas.Load(fstest.MapFS{"f.yaml": {Data: src}}); err != nil {
				_ = err.Error()
			}
		})
		if err != nil {
			return
		}
		b, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		back, err := schemas.ParseSet(b)
		if err != nil || back.Hash() != set.Hash() {
			t.Fatalf("%s: got %v after a round trip", b, err)
		}
	})
}
