package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"watershed/internal/devserver"
)

// A check is a view's answer in whole numbers, and the same counted from the list of events.
type check struct {
	view string
	sql  string
	want func(g *generator) []string // rows, cells joined by |
}

// checks cover every measure of every view. Means are compared by their bits.
func checks() []check {
	return []check{
		{"visits_by_hour", "SELECT toUnixTimestamp64Micro(hour), site, visits, slow, ms, worst FROM visits_by_hour", func(g *generator) []string {
			return grouped(g.all("visit"), func(e event) string {
				return fmt.Sprintf("%d|%s", e.at.Truncate(time.Hour).UnixMicro(), e.who)
			}, func(es []event) string {
				return fmt.Sprintf("%d|%d|%d|%d", len(es), count(es, func(e event) bool { return e.amount > 500 }), sum(es), most(es))
			})
		}},
		{"sites", "SELECT site, visits, reinterpretAsUInt64(assumeNotNull(mean)), visitors FROM sites", func(g *generator) []string {
			return grouped(g.all("visit"), func(e event) string { return e.who }, func(es []event) string {
				return fmt.Sprintf("%d|%d|%d", len(es), math.Float64bits(float64(sum(es))/float64(len(es))), len(es))
			})
		}},
		{"days", "SELECT toInt32(day), visits, toUnixTimestamp64Micro(first), toUnixTimestamp64Micro(last) FROM days", func(g *generator) []string {
			return grouped(g.all("visit"), func(e event) string { return fmt.Sprint(day(e)) }, func(es []event) string {
				before := func(a, b event) int { return a.at.Compare(b.at) }
				return fmt.Sprintf("%d|%d|%d", len(es), slices.MinFunc(es, before).at.UnixMicro(), slices.MaxFunc(es, before).at.UnixMicro())
			})
		}},
		{"customers", "SELECT customer, toInt32(day), orders, toInt64(revenue * 100) FROM customers", func(g *generator) []string {
			paid := slices.DeleteFunc(g.all("order"), func(e event) bool { return !e.paid })
			return grouped(paid, func(e event) string { return fmt.Sprintf("%s|%d", e.who, day(e)) }, func(es []event) string {
				return fmt.Sprintf("%d|%d", len(es), sum(es))
			})
		}},
		{"turnover", "SELECT orders, paid, toInt64(revenue * 100), toInt64(biggest * 100) FROM turnover", func(g *generator) []string {
			all := g.all("order")
			return []string{fmt.Sprintf("%d|%d|%d|%d", len(all), count(all, func(e event) bool { return e.paid }), sum(all), most(all))}
		}},
	}
}

func day(e event) int64 { return e.at.Unix() / 86_400 }

// grouped are the rows of events by key.
func grouped(events []event, key func(event) string, row func([]event) string) []string {
	groups := map[string][]event{}
	for _, e := range events {
		groups[key(e)] = append(groups[key(e)], e)
	}
	var out []string
	for k, es := range groups {
		out = append(out, k+"|"+row(es))
	}
	return out
}

func count(es []event, of func(event) bool) (n int) {
	for _, e := range es {
		if of(e) {
			n++
		}
	}
	return n
}

func sum(es []event) (total int64) {
	for _, e := range es {
		total += e.amount
	}
	return total
}

func most(es []event) int64 {
	return slices.MaxFunc(es, func(a, b event) int { return int(a.amount - b.amount) }).amount
}

// recount holds every view against the list of events, and returns how many groups it compared.
func recount(ctx context.Context, server *devserver.ClickHouse, g *generator) (groups int, err error) {
	for _, c := range checks() {
		got, err := ask(ctx, server, c.sql)
		if err != nil {
			return 0, err
		}
		want := c.want(g)
		slices.Sort(got)
		slices.Sort(want)
		groups += len(want)
		if slices.Equal(got, want) {
			continue
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				return 0, fmt.Errorf("view %s: got %d rows; want %d; the first that differs: got %s; want %s", c.view, len(got), len(want), at(got, i), at(want, i))
			}
		}
	}
	return groups, nil
}

func at(rows []string, i int) string {
	if i < len(rows) {
		return rows[i]
	}
	return "none"
}

// ask returns a query's rows, cells joined by |.
func ask(ctx context.Context, server *devserver.ClickHouse, sql string) (rows []string, err error) {
	params := url.Values{"default_format": {"JSONCompactStringsEachRow"}, "wait_end_of_query": {"1"}, "database": {database}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+server.HTTPAddr()+"/?"+params.Encode(), strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(server.Admin())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", sql, body)
	}
	for line := range strings.Lines(string(body)) {
		var cells []string
		if err := json.Unmarshal([]byte(line), &cells); err != nil {
			return nil, err
		}
		rows = append(rows, strings.Join(cells, "|"))
	}
	return rows, nil
}
