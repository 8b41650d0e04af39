package api

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"watershed/internal/bounded"
	"watershed/schemas"
	"watershed/schemas/agg"
)

// fuzzedView has a dimension of every type.
func fuzzedView(t testing.TB) View {
	v := View{Definition: &schemas.View{Name: "v", From: "e"}}
	for k := schemas.String; k <= schemas.Date; k++ {
		typ := schemas.Type{Kind: k}
		if k == schemas.Decimal {
			typ.Precision, typ.Scale = 18, 2
		}
		v.Dimensions = append(v.Dimensions, Dimension{Name: "k_" + regexp.MustCompile(`\W.*`).ReplaceAllString(typ.String(), ""), Type: typ, Nullable: k != schemas.Timestamp})
	}
	v.Dimensions = append(v.Dimensions, Dimension{Name: "hour", Type: schemas.Type{Kind: schemas.Timestamp}, Bucket: time.Hour})
	for _, name := range []string{"count", "sum", "quantiles"} {
		arg, levels := schemas.Type{Kind: schemas.Int64}, []float64(nil)
		switch name {
		case "count":
			arg = schemas.Type{}
		case "quantiles":
			levels = []float64{0.5}
		}
		f, err := agg.New(name, arg, levels)
		if err != nil {
			t.Fatal(err)
		}
		m := Measure{Name: "m_" + name, Func: f}
		for _, c := range f.Columns(m.Name) {
			m.Columns = append(m.Columns, c.Name)
		}
		v.Measures = append(v.Measures, m)
	}
	return v
}

// What SQL consists of, once its quoted names and its parameters are taken out: our own words.
var (
	quoted    = regexp.MustCompile("`([^`]*)`")
	parameter = regexp.MustCompile(`\{([a-z]+[0-9]*):[A-Za-z0-9(), ']+\}`)
	ourWords  = regexp.MustCompile(`^[A-Za-z0-9_ .,()=<>+'-]*$`)
)

// FuzzQuery compiles the parameters of a typed query. Nothing that the client wrote gets into the SQL:
// its names are the view's, everything else is a parameter that has its value.
func FuzzQuery(f *testing.F) {
	v := fuzzedView(f)
	names := []string{"v_states"}
	for _, d := range v.Dimensions {
		names = append(names, d.Name)
	}
	for _, m := range v.Measures {
		names = append(append(names, m.Name), m.Columns...)
	}
	for _, q := range []string{
		"", "dimensions=hour,k_string&measures=m_count&grain=1d&from=2001-06-01&to=2001-07-01T00:00:00Z&order=-m_count,hour&limit=10",
		"filter=k_string:a'b%00\\&filter=k_string:c&filter=k_int64:-5&null=k_decimal&filter=k_decimal:1.25&filter=k_bool:true",
		"filter=k_float64:1e300&filter=k_timestamp:2001-06-01T12:00:00.5Z&filter=k_date:1969-12-31", "grain=7d&measures=", "limit=0", "order=`", "dimensions=&measures=",
		"grain=106751d", "grain=1w&dimensions=hour", "from=2299-12-31T23:59:59.999999%2B14:00",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		var sql string
		var parameters map[string]string
		bounded.Run(t, func() {
			if sql, parameters, err = compile(v, query); err != nil {
				_ = err.Error()
			}
		})
		if err != nil {
			return
		}
		for _, name := range quoted.FindAllStringSubmatch(sql, -1) {
			if !slices.Contains(names, name[1]) {
				t.Fatalf("%q: the SQL names %q: %s", text, name[1], sql)
			}
		}
		used := map[string]bool{}
		rest := parameter.ReplaceAllStringFunc(quoted.ReplaceAllString(sql, ""), func(p string) string {
			name := parameter.FindStringSubmatch(p)[1]
			if _, ok := parameters[name]; !ok {
				t.Fatalf("%q: parameter %s has no value: %s", text, name, sql)
			}
			used[name] = true
			return ""
		})
		if !ourWords.MatchString(rest) || strings.Count(rest, "'")%2 != 0 {
			t.Fatalf("%q: the SQL is %s", text, sql)
		}
		if len(used) != len(parameters) {
			t.Fatalf("%q: %d parameters have values, %d are in the SQL: %s", text, len(parameters), len(used), sql)
		}
	})
}
