package store

import (
	"strings"
	"testing"

	"watershed/internal/bounded"
)

// FuzzParseType reads the type of a result's column: whatever is accepted can be looked through.
func FuzzParseType(f *testing.F) {
	for _, s := range []string{
		"Nullable(DateTime64(6, 'UTC'))", "LowCardinality(Nullable(String))", "Array(Tuple(a Int64, `b c` Float64))", "Map(String, Array(UInt8))",
		"SimpleAggregateFunction(max, Tuple(UInt64, UInt64))", "Enum8('a(,' = 1, 'b\\'' = 2)", "DateTime64", "Nullable", "SimpleAggregateFunction(sum)", "Tuple()",
		"AggregateFunction(uniq, Int64)",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		bounded.Run(t, func() {
			parsed, err := parseType(text)
			if err != nil {
				return
			}
			var walk func(*typ)
			walk = func(t *typ) {
				if plain := t.plain(); plain == nil {
					panic("no type within " + t.name)
				}
				_ = t.scale
				for _, a := range t.args {
					walk(a)
				}
			}
			walk(parsed)
			if n := len(parsed.args); n > 1+strings.Count(text, ",") {
				t.Fatalf("%q: %d arguments", text, n)
			}
		})
	})
}
