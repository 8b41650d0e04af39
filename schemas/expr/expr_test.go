package expr_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"watershed/schemas"
	"watershed/schemas/expr"
)

func event(t testing.TB) *schemas.Event {
	t.Helper()
	ev := &schemas.Event{Name: "thing", ID: "id", Time: "time"}
	for _, f := range []struct {
		name, typ string
		optional  bool
	}{
		{"id", "string", false}, {"time", "timestamp", false},
		{"s", "string", false}, {"so", "string", true}, {"b", "bool", false}, {"bo", "bool", true},
		{"i", "int64", false}, {"io", "int64", true}, {"f", "float64", false}, {"fo", "float64", true},
		{"d", "decimal(10,2)", false}, {"dx", "decimal(38,5)", true}, {"day", "date", false}, {"to", "timestamp", true},
	} {
		typ, err := schemas.ParseType(f.typ)
		if err != nil {
			t.Fatal(err)
		}
		ev.Fields = append(ev.Fields, schemas.Field{Name: f.name, Type: typ, Optional: f.optional})
	}
	return ev
}

func env(t testing.TB) *expr.Env {
	t.Helper()
	e, err := expr.NewEnv(event(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCompileErrors(t *testing.T) {
	e := env(t)
	f := func(text string, line, col int, msg, hint string) {
		t.Helper()
		x := schemas.Expression{Text: text, Pos: schemas.Pos{File: "v.yaml", Line: 10, Col: 5}}
		compile := func() error { _, err := e.Compile(x); return err }
		if strings.HasPrefix(text, "M:") {
			x.Text = text[2:]
			compile = func() error { _, err := e.CompileMeasure(x); return err }
		}
		err := compile()
		var errs schemas.Errors
		if !errors.As(err, &errs) || len(errs) != 1 {
			t.Errorf("%s: got error %v; want one schemas.Error", text, err)
			return
		}
		got := fmt.Sprintf("%d:%d", errs[0].Pos.Line-9, errs[0].Pos.Col-4)
		if want := fmt.Sprintf("%d:%d", line, col); got != want || !strings.Contains(errs[0].Msg, msg) || !strings.Contains(errs[0].Hint, hint) {
			t.Errorf("%s: got %s\n%v\nwant %s, message with %q, hint with %q", text, got, err, want, msg, hint)
		}
	}
	f("i +", 1, 4, "Syntax error", "")
	f("i + tme", 1, 5, "unknown field or function tme", "did you mean time?")
	f("i >\n  0 && sox", 2, 8, "unknown field or function sox", "did you mean so?")
	f("i + s", 1, 3, "operator + is not defined for (int64, string)", "")
	f("f > 1", 1, 3, "operator > is not defined for (float64, int64)", "1.0")
	f("bukket(time, '1h')", 1, 7, "unknown field or function bukket", "did you mean bucket?")
	f("bucket(time, '1w')", 1, 14, `"1w" is not a bucket's width`, "15m")
	f("bucket(time, s)", 1, 14, "must be a literal", "")
	f("timestamp(s)", 1, 11, "wants a literal", "")
	f("time > timestamp('2024')", 1, 18, "is not a time", "")
	f("i / 0", 1, 3, "division by zero", "")
	f("9223372036854775807 + 1", 1, 21, "always null", "")
	f("s.matches('(')", 1, 11, "bad pattern", "RE2")
	f("s.matches(so)", 1, 11, "must be a literal", "")
	f("i == null", 1, 3, "never null", "optional")
	f("io > null", 1, 4, "operator > is not defined for (int64, null)", "")
	f("i in []", 1, 6, "not empty", "")
	f("i in [i]", 1, 7, "literals only", "")
	f("[1, 2]", 1, 1, "no meaning", "")
	f("sum(i) > 1", 1, 4, "is an aggregate", "measures")
	f("d > 1.5", 1, 3, "operator > is not defined for (decimal, float64)", "decimal(")
	f("null", 1, 1, "no type", "")
	f("M:i + 1", 1, 3, "one aggregate call", "sum(x)")
	f("M:sum(count())", 1, 10, "within another", "")
	f("M:sum(i) + 1", 1, 8, "one aggregate call", "combine")
	f("M:sum(s)", 1, 4, "sum is not defined for (string)", "")
	f("M:quantiles(i, 1.5)", 1, 14, "level", "")
	f("M:histogram(i, 10, 10)", 1, 18, "ascending", "")
	f("M:histogram(i, i)", 1, 14, "bound is a literal", "")
	f("M:quantiles(i)", 1, 10, "quantiles is not defined for (int64)", "0.95")
	f("M:avrg(i)", 1, 5, "one aggregate call", "did you mean avg?")
}

func TestCompileTypes(t *testing.T) {
	e := env(t)
	f := func(text, typ string, nullable bool, canonical string) {
		t.Helper()
		x, err := e.Compile(schemas.Expression{Text: text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		if x.Type().String() != typ || x.Nullable() != nullable || x.String() != canonical {
			t.Errorf("%s: got %s, nullable %v, %s; want %s, %v, %s", text, x.Type(), x.Nullable(), x, typ, nullable, canonical)
		}
	}
	f("i", "int64", false, "i")
	f("i+1", "int64", true, "i + 1")
	f("i/15", "int64", false, "i / 15")
	f("24*60", "int64", false, "24 * 60")
	f("io==null", "bool", false, "io == null")
	f("has(to)", "bool", false, "has(to)")
	f("b&&bo", "bool", true, "b && bo")
	f("bucket(time,'1h')", "timestamp", false, `bucket(time, "1h")`)
	f("d + d", "decimal(11,2)", false, "d + d")
	f("d + dx", "decimal(38,5)", true, "d + dx")
	f("b ? i : null", "int64", true, "b ? i : null")
	f("date(to)", "date", true, "date(to)")
	f(`s in ["a", "b"]`, "bool", false, `s in ["a", "b"]`)
}
