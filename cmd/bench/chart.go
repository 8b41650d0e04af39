package main

import (
	"bytes"
	"fmt"
	"html"
	"os"
)

// A chart is bars in groups, and lines of text below that say by what command, where and when their lengths
// were measured.
type chart struct {
	title  string
	groups []bars
	footer []string
}

// bars are drawn on one scale with those of the other groups that have the same unit.
type bars struct {
	title, unit string
	bars        []bar
}

type bar struct {
	name, fill, label string
	value             float64
}

// Colours of bars.
const (
	blue, ochre, violet, pale = "#0969da", "#bf8700", "#8250df", "#afb8c1"
)

// write draws the chart as SVG.
func (c *chart) write(path string) error {
	const (
		left, width, height, gap = 210, 470, 22, 8
		ink, grey                = "#24292f", "#6e7781"
	)
	var b bytes.Buffer
	y := 64
	text := func(x, y int, size int, fill, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="%d" fill="%s" text-anchor="%s">%s</text>`+"\n", x, y, size, fill, anchor, html.EscapeString(s))
	}
	most := map[string]float64{}
	for _, g := range c.groups {
		for _, x := range g.bars {
			most[g.unit] = max(most[g.unit], x.value)
		}
	}
	for _, g := range c.groups {
		text(16, y+4, 14, ink, "start", g.title)
		y += 14
		for _, x := range g.bars {
			w := max(1, int(x.value/most[g.unit]*width))
			text(left-10, y+16, 13, ink, "end", x.name)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", left, y, w, height, x.fill)
			text(left+w+6, y+16, 13, ink, "start", x.label)
			y += height + gap
		}
		y += 24
	}
	for _, line := range c.footer {
		text(16, y, 11, grey, "start", line)
		y += 16
	}
	out := fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 %[1]d" font-family="system-ui, sans-serif" role="img" aria-label="%[2]s">
<rect width="840" height="%[1]d" fill="#ffffff"/>
<text x="16" y="30" font-size="17" font-weight="600" fill="%[3]s">%[2]s</text>
%[4]s</svg>
`, y, html.EscapeString(c.title), ink, b.Bytes())
	return os.WriteFile(path, out, 0o644)
}

// writeChart draws the times of both histories.
func (r *result) writeChart(path string) error {
	c := chart{title: fmt.Sprintf("%d views of %d events, results written (seconds, less is better)", len(r.Views), r.Events)}
	for _, kind := range []struct{ name, title string }{
		{compacted, "compacted history: no duplicates to remove"},
		{raw, "raw history: everybody removes duplicates"},
	} {
		s := r.Settings[kind.name]
		if s == nil {
			continue
		}
		g := bars{title: kind.title}
		for _, line := range []struct {
			name, fill string
			timing
		}{{"Watershed", blue, s.Ours}, {"ClickHouse", ochre, s.ClickHouse}, {"DuckDB", violet, s.DuckDB}, {"floor: decoding alone", pale, s.Floor}} {
			if line.Seconds == 0 {
				continue
			}
			label := fmt.Sprintf("%.2f s", line.Seconds)
			if line.name == "ClickHouse" || line.name == "DuckDB" {
				label += fmt.Sprintf("  (%.1f ×)", line.Seconds/s.Ours.Seconds)
			}
			g.bars = append(g.bars, bar{line.name, line.fill, label, line.Seconds})
		}
		c.groups = append(c.groups, g)
	}
	c.footer = []string{
		fmt.Sprintf("%d cores of %s, %.0f GB; ClickHouse %s, DuckDB %s; medians of %d runs, %s", r.Cores, r.Machine.CPU, r.Machine.MemoryGB, r.Versions.ClickHouse, r.Versions.DuckDB, r.Runs, r.Date),
		r.Command,
	}
	return c.write(path)
}

// writeChart draws rates and latencies.
func (r *speedResult) writeChart(path string) error {
	c := chart{title: fmt.Sprintf("From producers into views, all on %d cores", r.Cores)}
	rates := bars{title: "events per second, all visible (more is better)", unit: "rate"}
	for _, x := range []bar{{"Watershed, one view", blue, "", r.OneRate}, {"Watershed, six views", blue, "", r.SixRate}, {"ClickHouse, six views", ochre, "", r.PeerRate}} {
		if x.value > 0 {
			x.label = fmt.Sprintf("%.0f,000", x.value/1000)
			rates.bars = append(rates.bars, x)
		}
	}
	times := bars{title: "from publish to visible in six views (p99, less is better)", unit: "ms"}
	for _, l := range r.Latencies {
		times.bars = append(times.bars, bar{fmt.Sprintf("%d events/s", l.Rate), blue, fmt.Sprintf("%.0f ms (p50 %.0f ms)", l.P99, l.P50), l.P99})
	}
	for _, g := range []bars{rates, times} {
		if len(g.bars) > 0 {
			c.groups = append(c.groups, g)
		}
	}
	c.footer = []string{
		fmt.Sprintf("%d cores of %s, %.0f GB; ClickHouse %s with a raw table and six materialized views; medians of %d runs, %s", r.Cores, r.Machine.CPU, r.Machine.MemoryGB, r.Versions.ClickHouse, r.Runs, r.Date),
		r.Command,
	}
	return c.write(path)
}
