package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// A setting is everybody's times on one history.
type setting struct {
	Ours       timing `json:"ours"`
	Floor      timing `json:"floor"`
	ClickHouse timing `json:"clickhouse"`
	DuckDB     timing `json:"duckdb"`
}

// A result is what the benchmark found. The names of its JSON form are kept from version to version.
type result struct {
	Data    string   `json:"data"`
	Events  int      `json:"events"` // distinct ones
	Views   []string `json:"views"`
	Days    int      `json:"days"`
	Seed    uint64   `json:"seed"`
	Cores   int      `json:"cores"`
	Runs    int      `json:"runs"`
	Command string   `json:"command"`
	Date    string   `json:"date"`
	Machine machine  `json:"machine"`

	MemoryMB int64    `json:"memory_limit_mb"`
	Versions versions `json:"versions"`

	comparison                      // of the compacted history
	FloorSeconds float64            `json:"floor_seconds"`
	PeakMB       float64            `json:"peak_mb"`
	CPU          float64            `json:"ours_cpu_seconds"`
	Server       *cost              `json:"clickhouse_of_ours"`
	Groups       uint64             `json:"groups"`
	Phases       map[string]float64 `json:"phases"`
	Raw          *comparison        `json:"raw,omitempty"`
	SketchFree   *sketchFree        `json:"sketch_free,omitempty"`
	Scale        []point            `json:"scale,omitempty"`
	ByViews      []point            `json:"by_views,omitempty"`
	ByCores      []point            `json:"by_cores,omitempty"`
	Changed      *night             `json:"changed,omitempty"`

	Settings map[string]*setting `json:"settings"` // in full, by history
}

type versions struct {
	Watershed  string `json:"watershed"`
	ClickHouse string `json:"clickhouse"`
	DuckDB     string `json:"duckdb"`
}

// A comparison is our time beside the peers'.
type comparison struct {
	Ours  float64            `json:"ours_seconds"`
	Peers map[string]float64 `json:"peers"`
	Ratio float64            `json:"ratio_to_best_peer"` // how many times faster ours is
}

type sketchFree struct {
	Views []string `json:"views"`
	Ours  float64  `json:"ours_seconds"`
	Floor float64  `json:"floor_seconds"`
	Ratio float64  `json:"ratio_to_floor"`
}

func compared(s *setting) comparison {
	c := comparison{Ours: s.Ours.Seconds, Peers: map[string]float64{}}
	for name, t := range map[string]timing{"clickhouse": s.ClickHouse, "duckdb": s.DuckDB} {
		if t.Seconds == 0 {
			continue // not measured
		}
		c.Peers[name] = t.Seconds
		if ratio := t.Seconds / c.Ours; c.Ratio == 0 || ratio < c.Ratio {
			c.Ratio = ratio
		}
	}
	return c
}

func (r *result) put(kind string, s *setting) {
	if r.Settings == nil {
		r.Settings = map[string]*setting{}
	}
	r.Settings[kind] = s
	c := compared(s)
	if kind == raw {
		r.Raw = &c
		return
	}
	r.comparison, r.FloorSeconds = c, s.Floor.Seconds
	r.PeakMB, r.CPU, r.Server = s.Ours.PeakMB, s.Ours.CPU, s.Ours.Server
	if s.Ours.Report != nil {
		r.Phases, r.Groups = s.Ours.Report.Phases, s.Ours.Report.Groups
	}
}

func (r *result) putSketchFree(views []string, s *setting) {
	r.SketchFree = &sketchFree{Views: views, Ours: s.Ours.Seconds, Floor: s.Floor.Seconds, Ratio: s.Ours.Seconds / s.Floor.Seconds}
	r.Settings["sketch_free"] = s
}

// writeJSON writes a result.
func writeJSON(path string, result any) error {
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// print prints the result as tables.
func (r *result) print(out io.Writer) {
	fmt.Fprintf(out, "%d events of %s on %d dates, %d views, %d groups; %d cores, %d MB each, medians of %d runs after a warm-up\n",
		r.Events, r.Data, r.Days, len(r.Views), r.Groups, r.Cores, r.MemoryMB, r.Runs)
	fmt.Fprintf(out, "%s, %d cores, %.0f GB, load %s, %s; ClickHouse %s, DuckDB %s\n\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.MemoryGB, r.Machine.Load, r.Date, r.Versions.ClickHouse, r.Versions.DuckDB)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "history\tengine\tseconds\ttimes ours\tCPU s\tpeak MB\tCPU s and peak MB of ClickHouse below\t")
	for _, kind := range []string{compacted, raw, "sketch_free"} {
		s := r.Settings[kind]
		if s == nil {
			continue
		}
		for _, line := range []struct {
			name string
			timing
		}{{"Watershed", s.Ours}, {"ClickHouse", s.ClickHouse}, {"DuckDB", s.DuckDB}, {"floor: decoding alone", s.Floor}} {
			if line.Seconds == 0 {
				continue
			}
			below := ""
			if line.Server != nil {
				below = fmt.Sprintf("%.1f, %.0f", line.Server.CPU, line.Server.PeakMB)
			}
			fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.1f\t%.0f\t%s\t\n", kind, line.name, line.Seconds, line.Seconds/s.Ours.Seconds, line.CPU, line.PeakMB, below)
		}
	}
	_ = w.Flush()
	fmt.Fprintln(out)
	for _, kind := range []string{compacted, raw, "sketch_free"} {
		if s := r.Settings[kind]; s != nil && s.Ours.Report != nil {
			fmt.Fprintf(out, "%s: Watershed's seconds by phase, summed over goroutines, and by step: %s\n", kind, s.Ours.where())
		}
	}
	fmt.Fprintln(out, approximations)
	for _, p := range []struct {
		name   string
		points []point
	}{{"million events", r.Scale}, {"views", r.ByViews}, {"cores", r.ByCores}} {
		for _, x := range p.points {
			fmt.Fprintf(out, "%d %s: %.2f s, %.1f s of CPU, %.0f MB, %d groups\n", x.At, p.name, x.Seconds, x.CPU, x.PeakMB, x.Groups)
		}
	}
	if c := r.Changed; c != nil {
		fmt.Fprintf(out, "one changed date of %d: cold %.2f s, nightly %.2f s (1/%.0f; %d slices computed, %d reused), rebuild %.2f s and equal\n",
			c.Days, c.Cold, c.Nightly, c.Ratio, c.Computed, c.Reused, c.Rebuild)
	}
}

// approximations says who estimates what.
var approximations = strings.Join([]string{
	"uniq: Watershed and ClickHouse are exact up to 65,536 values and about 0.5 % off above; DuckDB's approx_count_distinct is 13 % off (standard error).",
	"quantiles: Watershed and ClickHouse estimate within 0.8 % (values as bfloat16, counted, and so mergeable); DuckDB's quantile_disc is exact, and here faster than its approx_quantile.",
	"Watershed and ClickHouse write mergeable states; DuckDB writes finished values. Everything else is exact everywhere.",
}, "\n")
