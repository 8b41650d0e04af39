package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
	"watershed/serving/api"
	"watershed/serving/store"
)

// stored is a catalog over the real store, as the program has it.
type stored struct {
	*store.DB
	plans []*view.Plan
}

func (s stored) Builds(ctx context.Context) ([]api.BuildInfo, error) {
	builds, err := s.DB.Builds(ctx)
	var out []api.BuildInfo
	for _, b := range builds {
		out = append(out, api.BuildInfo{Number: b.Number, Cut: b.Cut, At: b.At, Plans: b.Plans, Slices: b.Slices})
	}
	return out, err
}

func (s stored) Views(context.Context) ([]api.View, error) {
	var out []api.View
	for _, p := range s.plans {
		v := api.View{Definition: p.View, Plan: p.Hash}
		for _, d := range p.Dimensions {
			v.Dimensions = append(v.Dimensions, api.Dimension{Name: d.Name, Type: d.Type, Nullable: d.Nullable, Bucket: d.Bucket})
		}
		for _, m := range p.Measures {
			var names []string
			for _, c := range m.Columns {
				names = append(names, c.Name)
			}
			v.Measures = append(v.Measures, api.Measure{Name: m.Name, Columns: names, Func: m.Func})
		}
		out = append(out, v)
	}
	return out, nil
}

func (s stored) Reached(ctx context.Context) (api.Reached, error) {
	r, err := s.DB.Reached(ctx, s.plans)
	out := api.Reached{Live: r.Live}
	views, _ := s.Views(ctx)
	for i, p := range s.plans {
		if reach, ok := r.Plans[p.Hash]; ok {
			out.Plans = append(out.Plans, api.Reach{View: views[i], Position: reach.Position(), States: reach.States, SpeedTable: store.SpeedTable(p)})
		}
	}
	return out, err
}

func (s stored) Positions(ctx context.Context, views []api.View) (map[string]schemas.Mark, error) {
	var plans []*view.Plan
	for _, p := range s.plans {
		for _, v := range views {
			if v.Plan == p.Hash {
				plans = append(plans, p)
			}
		}
	}
	return s.DB.Positions(ctx, plans)
}

// TestOverTheStore queries compiled plans whose states the speed layer's path brought into the store.
func TestOverTheStore(t *testing.T) {
	ctx := t.Context()
	c := devtest.SharedClickHouse(t)
	database := fmt.Sprintf("watershed_api_%d", databases.Add(1))
	user, password := c.Admin()
	db, err := store.Open(ctx, store.Config{Addr: c.Addr(), Database: database, User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	is := func(name, text string) schemas.Definition {
		return schemas.Definition{Name: name, Expression: schemas.Expression{Text: text}}
	}
	event := &schemas.Event{Name: "departure", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: kind(schemas.String)}, {Name: "time", Type: kind(schemas.Timestamp)}, {Name: "delay", Type: kind(schemas.Int64)}}}
	dimensions := []schemas.Definition{is("hour", `bucket(time, "1h")`)}
	plans, err := view.CompileSet(&schemas.Set{Events: []*schemas.Event{event}, Views: []*schemas.View{
		{Name: "covered", From: "departure", Dimensions: dimensions, Measures: []schemas.Definition{is("flights", "count()"), is("delay", "quantiles(delay, 0.5, 0.9)"), is("kinds", "uniq(delay)")}},
		{Name: "newer", From: "departure", Dimensions: dimensions, Measures: []schemas.Definition{is("most", "max(delay)")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	const rows = 5000
	b := array.NewRecordBuilder(memory.DefaultAllocator, event.ArrowSchema())
	defer b.Release()
	for i := range rows {
		b.Field(0).(*array.StringBuilder).Append(fmt.Sprint(i))
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(int64(i) * 61e6))
		b.Field(2).(*array.Int64Builder).Append(int64(i*i%977) - 300)
		b.Field(3).(*array.Int64Builder).Append(int64(i + 1))
		b.Field(4).(*array.Int32Builder).Append(0)
	}
	record := b.NewRecord()
	defer record.Release()
	reader := column.NewReader()
	for i, step := range []func() error{
		func() error { return db.EnsurePlans(ctx, plans[:1], true) },
		func() error { return db.EnsurePlans(ctx, plans[1:], false) },
		func() error { return db.PublishViews(ctx, plans) },
		func() error { return db.TakeOver(ctx, store.RoleSpeed, 1) },
		func() error {
			fold := plans[0].NewFold()
			if err := fold.Add(reader.Block(record), nil); err != nil {
				return err
			}
			return db.InsertSpeed(ctx, plans[0], 1, schemas.Mark{Epoch: 0, Position: schemas.Position{Seq: rows, Hash: 7}}, fold.Flush())
		},
	} {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	h, err := api.Handler(api.Config{}, api.Deps{Reader: openReader(t, c, database), Catalog: stored{db, plans}, Log: logOf{openLog(t)}})
	if err != nil {
		t.Fatal(err)
	}
	w := (&world{}).listen(t, h)
	admin := clickhouse{c.HTTPAddr(), database, user, password}
	got := w.get(t, "/v1/views/covered?grain=1d&format=ndjson")
	want := admin.must(t, fmt.Sprintf(`SELECT fromUnixTimestamp64Micro(toInt64(intDiv(number * 61, 86400) * 86400000000), 'UTC') AS hour, count() AS flights,
		quantilesBFloat16(0.5, 0.9)(v) AS delay, uniq(v) AS kinds FROM (SELECT number, toInt64(number * number %% 977) - 300 AS v FROM numbers(%d)) GROUP BY hour ORDER BY hour FORMAT JSONEachRow`, rows))
	if got.status != http.StatusOK || got.body != want || got.header.Get("Watershed-Position") != fmt.Sprintf("0:%d", rows) || got.header.Get("Watershed-Build") != "0" {
		t.Errorf("%d %v\n%s\nwant\n%s", got.status, got.header, got.body, want)
	}
	if p := problemIn(t, w.get(t, "/v1/views/newer")); p.Code != api.NotCovered || !strings.Contains(p.Detail, "newer") {
		t.Errorf("%+v; want not-covered", p)
	}
	if p := problemIn(t, w.sql(t, "SELECT * FROM newer", "")); p.Code != api.NotCovered {
		t.Errorf("%+v; want not-covered", p)
	}
}
