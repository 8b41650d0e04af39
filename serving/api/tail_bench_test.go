package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"testing"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/api"
	"watershed/serving/store"
)

// BenchmarkTailLook is one look of a tail for changes, by ClickHouse on one thread, of a view whose speed states have so
// many groups, ten of which have changed.
func BenchmarkTailLook(b *testing.B) {
	ctx := b.Context()
	c := devtest.SharedClickHouse(b)
	is := func(name, text string) schemas.Definition {
		return schemas.Definition{Name: name, Expression: schemas.Expression{Text: text}}
	}
	event := &schemas.Event{Name: "departure", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: kind(schemas.String)}, {Name: "time", Type: kind(schemas.Timestamp)}, {Name: "delay", Type: kind(schemas.Int64)}}}
	plans, err := view.CompileSet(&schemas.Set{Events: []*schemas.Event{event}, Views: []*schemas.View{
		{Name: "followed", From: "departure", Dimensions: []schemas.Definition{is("minute", `bucket(time, "1m")`), is("delay", "delay")},
			Measures: []schemas.Definition{is("flights", "count()")}}}})
	if err != nil {
		b.Fatal(err)
	}
	user, password := c.Admin()
	for _, groups := range []int{10_000, 100_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(groups), func(b *testing.B) {
			database := fmt.Sprintf("watershed_api_%d", databases.Add(1))
			db, err := store.Open(ctx, store.Config{Addr: c.Addr(), Database: database, User: user, Password: password, NoFsync: true})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			if err := db.EnsurePlans(ctx, plans, true); err != nil {
				b.Fatal(err)
			}
			if err := db.PublishViews(ctx, plans); err != nil {
				b.Fatal(err)
			}
			admin := clickhouse{c.HTTPAddr(), database, user, password}
			defer admin.must(b, "DROP DATABASE "+database)
			speed := store.SpeedTable(plans[0])
			admin.must(b, fmt.Sprintf("INSERT INTO `%s` (_epoch, _shard, _pos, minute, delay, flights) SELECT 0, 0, (number, 0), toDateTime64('2024-01-01 00:00:00', 6, 'UTC') + toIntervalMinute(intDiv(number, 1000)), number %% 1000, 1 FROM numbers(%d)", speed, groups))
			admin.must(b, fmt.Sprintf("OPTIMIZE TABLE `%s` FINAL", speed))
			views, err := stored{db, plans}.Views(ctx)
			if err != nil {
				b.Fatal(err)
			}
			sql := api.ChangesSQL(views[0], speed)
			ask := url.Values{"param_last": {fmt.Sprint(groups - 11)}, "param_groups": {"1000"}, "max_threads": {"1"}, "wait_end_of_query": {"1"}}
			var cost struct {
				Rows    float64 `json:"read_rows,string"`
				Bytes   float64 `json:"read_bytes,string"`
				Results int     `json:"result_rows,string"`
			}
			for b.Loop() {
				resp, err := admin.post(ctx, sql, ask)
				if err != nil {
					b.Fatal(err)
				}
				_, err = io.Copy(io.Discard, resp.Body)
				if err != nil || resp.Body.Close() != nil {
					b.Fatal(err)
				}
				if err := json.Unmarshal([]byte(resp.Header.Get("X-ClickHouse-Summary")), &cost); err != nil {
					b.Fatal(err)
				}
			}
			if cost.Results != 10 {
				b.Errorf("%d groups; want the 10 that changed", cost.Results)
			}
			b.ReportMetric(cost.Rows, "rows_read/op")
			b.ReportMetric(cost.Bytes, "B_read/op")
		})
	}
}
