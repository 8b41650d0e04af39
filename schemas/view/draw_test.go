package view_test

import (
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/agg/aggtest"
)

// reading is an event with a field of every type; all but id and time may be null.
func reading() *schemas.Event {
	ev := &schemas.Event{Name: "reading", ID: "id", Time: "time"}
	field := func(name, typ string, optional bool) {
		t, err := schemas.ParseType(typ)
		if err != nil {
			panic(err)
		}
		ev.Fields = append(ev.Fields, schemas.Field{Name: name, Type: t, Optional: optional})
	}
	field("id", "int64", false)
	field("time", "timestamp", false)
	field("site", "string", false)
	field("tag", "string", true)
	field("ok", "bool", true)
	field("level", "int64", true)
	field("plain", "int64", false)
	field("heat", "float64", true)
	field("price", "decimal(18,2)", true)
	field("due", "timestamp", true)
	field("day", "date", true)
	return ev
}

func definitions(of map[string]string) []schemas.Definition {
	var defs []schemas.Definition
	for _, name := range slices.Sorted(maps.Keys(of)) {
		defs = append(defs, schemas.Definition{Name: name, Expression: schemas.Expression{Text: of[name]}})
	}
	return defs
}

// drawView draws a view whose names are often those of fields, which must not be captured.
func drawView(r *rapid.T) *schemas.View {
	dims, measures := map[string]string{}, map[string]string{}
	for _, d := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"time=bucket(time, \"1h\")", "hour=bucket(time, \"24h\")", "site=site", "tag=tag", "ok=ok", "level=level", "heat=heat",
		"price=price", "due=due", "day=day", "high=level > 3", "plain=site",
		"length=size(tag)", "both=site + tag", "half=heat / 2.0", "double=price + price", "date=date(time)", "known=tag == null ? site : tag", "minus=-heat",
	}), 0, 4, rapid.ID[string]).Draw(r, "dimensions") {
		name, is, _ := strings.Cut(d, "=")
		dims[name] = is
	}
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"n=count()", "ok=count(ok)", "late=count(level > 2)", "level=sum(level)", "plain=sum(plain)", "heat=sum(heat)", "price=sum(price)",
		"lo=min(level)", "hi=max(heat)", "first=min(time)", "due=max(due)", "site=max(site)", "tag=min(tag)", "day=max(day)",
		"h=histogram(level, -3, 0, 7)", "hh=histogram(heat, -1.0, 0.0, 2.5, 1e9)", "hp=histogram(plain, 0)",
		"ds=distinct(site)", "dt=distinct(tag)", "dh=distinct(heat)", "dp=distinct(price)", "dd=distinct(due)", "dy=distinct(day)", "dk=distinct(ok)",
		"spread=stddev(level)", "far=variance_sample(price)", "hotter=variance(heat)", "mild=stddev_sample(heat)", "var=variance(plain)",
		"mean=avg(level)", "cost=avg(price)", "warm=avg(heat)",
		"sites=uniq(site)", "tags=uniq(tag)", "heats=uniq(heat)", "prices=uniq(price)", "dues=uniq(due)", "days=uniq(day)", "oks=uniq(ok)",
		"q=quantiles(level, 0.5, 0.99)", "hot=quantiles(heat, 0.1, 0.9)", "pq=quantiles(plain, 0.5)",
		"more=sum(level + plain)", "ratio=avg(heat / double(level))", "rq=quantiles(heat * heat, 0.5)", "zero=uniq(heat * 0.0)", "least=min(-heat)",
		"words=uniq(site + tag)", "cheap=max(price - decimal(\"0.5\"))", "span=max(date(due))", "oks_and=count(ok && level > 0)",
	}), 1, 6, rapid.ID[string]).Draw(r, "measures") {
		name, is, _ := strings.Cut(m, "=")
		if _, taken := dims[name]; taken {
			name += "_of"
		}
		measures[name] = is
	}
	v := &schemas.View{Name: "v", From: "reading", Dimensions: definitions(dims), Measures: definitions(measures)}
	v.Where.Text = rapid.SampledFrom([]string{"", "", "level > 0", "ok", "ok || heat > 0.0", "site != \"a\""}).Draw(r, "where")
	return v
}

// drawEvents draws so many events, the optional fields null a third of the time.
func drawEvents(r *rapid.T, ev *schemas.Event, n int) map[string][]any {
	values := make(map[string][]any)
	for _, f := range ev.Fields {
		g := aggtest.Draw(f.Type)
		if f.Name == "time" {
			g = rapid.Int64Range(-4, 4).AsAny()
		}
		if f.Optional {
			g = rapid.OneOf(g, g, rapid.Just[any](nil))
		}
		values[f.Name] = rapid.SliceOfN(g, n, n).Draw(r, f.Name)
		if f.Name == "time" {
			for i, x := range values[f.Name] {
				values[f.Name][i] = x.(int64) * 1_700_000_000
			}
		}
	}
	return values
}

// events is the record of the events from..to, strings as dictionaries if asked.
func events(ev *schemas.Event, values map[string][]any, from, to int, dictionary bool) arrow.Record {
	var fields []arrow.Field
	var columns []arrow.Array
	for _, f := range ev.Fields {
		a := aggtest.Array(f.Type, values[f.Name][from:to], dictionary)
		fields = append(fields, arrow.Field{Name: f.Name, Type: a.DataType(), Nullable: f.Optional})
		columns = append(columns, a)
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), columns, int64(to-from))
}
