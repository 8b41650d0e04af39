package main

import (
	"bytes"
	"fmt"
	"html"
	"os"
)

// writeChart draws the times of both histories as bars, and says by what command, where and when they
// were measured.
func (r *result) writeChart(path string) error {
	const (
		left, width, bar, gap = 210, 470, 22, 8
		ink, grey             = "#24292f", "#6e7781"
	)
	var b bytes.Buffer
	y := 64
	text := func(x, y int, size int, fill, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="%d" fill="%s" text-anchor="%s">%s</text>`+"\n", x, y, size, fill, anchor, html.EscapeString(s))
	}
	most := 0.0
	for _, s := range r.Settings {
		most = max(most, s.Ours.Seconds, s.ClickHouse.Seconds, s.DuckDB.Seconds)
	}
	for _, group := range []struct{ kind, title string }{
		{compacted, "compacted history: no duplicates to remove"},
		{raw, "raw history: everybody removes duplicates"},
	} {
		s := r.Settings[group.kind]
		if s == nil {
			continue
		}
		text(16, y+4, 14, ink, "start", group.title)
		y += 14
		for _, line := range []struct {
			name, fill string
			timing
		}{{"Watershed", "#0969da", s.Ours}, {"ClickHouse", "#bf8700", s.ClickHouse}, {"DuckDB", "#8250df", s.DuckDB}, {"floor: decoding alone", "#afb8c1", s.Floor}} {
			if line.Seconds == 0 {
				continue
			}
			w := max(1, int(line.Seconds/most*width))
			text(left-10, y+16, 13, ink, "end", line.name)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", left, y, w, bar, line.fill)
			label := fmt.Sprintf("%.2f s", line.Seconds)
			if line.name == "ClickHouse" || line.name == "DuckDB" {
				label += fmt.Sprintf("  (%.1f ×)", line.Seconds/s.Ours.Seconds)
			}
			text(left+w+6, y+16, 13, ink, "start", label)
			y += bar + gap
		}
		y += 24
	}
	for _, line := range []string{
		fmt.Sprintf("%d cores of %s, %.0f GB; ClickHouse %s, DuckDB %s; medians of %d runs, %s", r.Cores, r.Machine.CPU, r.Machine.MemoryGB, r.Versions.ClickHouse, r.Versions.DuckDB, r.Runs, r.Date),
		r.Command,
	} {
		text(16, y, 11, grey, "start", line)
		y += 16
	}
	title := fmt.Sprintf("%d views of %d events, results written (seconds, less is better)", len(r.Views), r.Events)
	out := fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 %[1]d" font-family="system-ui, sans-serif" role="img" aria-label="%[2]s">
<rect width="840" height="%[1]d" fill="#ffffff"/>
<text x="16" y="30" font-size="17" font-weight="600" fill="%[3]s">%[2]s</text>
%[4]s</svg>
`, y, html.EscapeString(title), ink, b.Bytes())
	return os.WriteFile(path, out, 0o644)
}
