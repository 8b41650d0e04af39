package schemas_test

import (
	"encoding/json"
	"os"
	"testing"

	"watershed/internal/bounded"
	"watershed/schemas"
)

// FuzzParseSet reads definitions as a cut carries them: what parses has one canonical form.
func FuzzParseSet(f *testing.F) {
	set, err := schemas.Load(os.DirFS("examples"))
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(set)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"events":[{"name":"e","fields":[{"name":"x","type":"decimal(38,0)"}]}],"views":[{"measures":null}]}`))
	f.Add([]byte(`{"events":[{"event":"e","fields":[{"name":"x"},{"name":"y","type":null}]}]}`))
	f.Add([]byte(`{} {}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var set *schemas.Set
		bounded.Run(t, func() { set, err = schemas.ParseSet(text) })
		if err != nil {
			return
		}
		canonical, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		again, err := schemas.ParseSet(canonical)
		if err != nil || again.Hash() != set.Hash() {
			t.Fatalf("%s: got %v after a round trip", canonical, err)
		}
	})
}

// FuzzParseType reads the type of a field: what it says is what was read.
func FuzzParseType(f *testing.F) {
	for _, s := range []string{"string", "int64", "decimal(18,2)", "decimal( 38 , 38 )", "decimal(0,0)", "decimal(", "decimal(1,-1)", "timestamp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var typ schemas.Type
		var err error
		bounded.Run(t, func() { typ, err = schemas.ParseType(text) })
		if err != nil {
			return
		}
		if again, err := schemas.ParseType(typ.String()); err != nil || again != typ {
			t.Fatalf("%q is read as %s, and that as %s, %v", text, typ, again, err)
		}
		if typ.ClickHouse() == "" || typ.Delta() == "" || typ.Arrow() == nil {
			t.Fatalf("%s has no form elsewhere", typ)
		}
	})
}
