package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// headlineRate is the rate of events whose latencies the result names by themselves.
const headlineRate = 50_000

// A speedResult is what the benchmark of the speed layer found. The names of its JSON form are kept from
// version to version.
type speedResult struct {
	OneRate     float64 `json:"one_view_events_per_second"`
	SixRate     float64 `json:"six_views_events_per_second"`
	SingleRatio float64 `json:"single_message_ratio_to_bare_consumer"`
	PeerRate    float64 `json:"peer_events_per_second"`
	Ratio       float64 `json:"ratio_to_peer"` // six views each
	P50         float64 `json:"visible_p50_ms_at_50k"`
	P99         float64 `json:"visible_p99_ms_at_50k"`
	IdleMs      float64 `json:"visible_p50_ms_idle"`
	PeakMB      float64 `json:"peak_mb"` // of the worker, in all runs
	CatchUp     float64 `json:"restart_multiple_of_live_rate"`

	Events        int      `json:"events"`
	BytesPerEvent float64  `json:"bytes_per_event"`
	PerMessage    int      `json:"events_per_message"`
	Fsync         bool     `json:"fsync"`
	Views         []string `json:"views"`
	Seed          uint64   `json:"seed"`
	Cores         int      `json:"cores"`
	Runs          int      `json:"runs"`
	Command       string   `json:"command"`
	Date          string   `json:"date"`
	Machine       machine  `json:"machine"`
	Versions      versions `json:"versions"`

	One       load       `json:"one_view"`
	Six       load       `json:"six_views"`
	Peer      peerLoad   `json:"peer"`
	PeerTried []peerLoad `json:"peer_tried"`
	Singles   singles    `json:"single_messages"`
	Latencies []latency  `json:"latencies"`
	Idle      latency    `json:"idle"`
	Restart   backlog    `json:"restart"`
}

// finish fills in what follows from the measurements.
func (r *speedResult) finish() {
	r.OneRate, r.SixRate, r.SingleRatio, r.PeerRate = r.One.Rate, r.Six.Rate, r.Singles.Ratio, r.Peer.Rate
	r.IdleMs, r.CatchUp = r.Idle.P50, r.Restart.Multiple
	if r.PeerRate > 0 {
		r.Ratio = r.SixRate / r.PeerRate
	}
	r.PeakMB = max(r.One.PeakMB, r.Six.PeakMB, r.Singles.PeakMB, r.Restart.PeakMB)
	for _, l := range r.Latencies {
		r.PeakMB = max(r.PeakMB, l.PeakMB)
		if l.Rate == headlineRate {
			r.P50, r.P99 = l.P50, l.P99
		}
	}
}

// print prints the result as tables.
func (r *speedResult) print(out io.Writer) {
	sync := "nobody syncs what is acknowledged"
	if r.Fsync {
		sync = "everybody syncs what is acknowledged"
	}
	fmt.Fprintf(out, "%d events of %.0f bytes, %d to a message; producers, NATS, worker and ClickHouse on %d cores; %s; medians of %d runs\n",
		r.Events, r.BytesPerEvent, r.PerMessage, r.Cores, sync, r.Runs)
	fmt.Fprintf(out, "%s, %d cores, %.0f GB, load %s, %s; ClickHouse %s\n\n", r.Machine.CPU, r.Machine.Cores, r.Machine.MemoryGB, r.Machine.Load, r.Date, r.Versions.ClickHouse)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tevents/s\tproducers\tNATS\tworker\tClickHouse\tworker MB\tClickHouse MB\tparts/s\t")
	line := func(name string, l load) {
		if l.Rate > 0 {
			fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.1f\t\n", name, l.Rate, l.CPU.Producers, l.CPU.NATS, l.CPU.Worker, l.CPU.ClickHouse, l.PeakMB, l.ServerPeak, l.Parts)
		}
	}
	line("one view", r.One)
	line("six views", r.Six)
	if r.Peer.Rate > 0 {
		fmt.Fprintf(w, "peer, six views\t%.0f\t\t\t\t%.2f\t\t%.0f\t%.1f\t\n", r.Peer.Rate, r.Peer.ClickHouse, r.Peer.PeakMB, r.Peer.Parts)
	}
	_ = w.Flush()
	fmt.Fprintln(out, "(processes: microseconds of CPU for each event)")
	if r.Ratio > 0 {
		fmt.Fprintf(out, "six views: %.1f times the peer, whose fastest way was %s\n", r.Ratio, r.Peer.Way)
	}
	if s := r.Singles; s.Worker > 0 {
		fmt.Fprintf(out, "one event per message, from a log of %d: %.0f/s into one view; a consumer that only reads: %.0f/s; ratio %.2f\n", s.Messages, s.Worker, s.Bare, s.Ratio)
	}
	if len(r.Latencies) > 0 {
		fmt.Fprintln(out)
		w = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "events/s\tvisible after p50 ms\tp99\tp99.9\tmax\ta query of all views\tcores busy\tworker MB\tparts/s\t")
		for _, l := range r.Latencies {
			fmt.Fprintf(w, "%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.2f\t%.0f\t%.1f\t\n", l.Rate, l.P50, l.P99, l.P999, l.Max, l.Query, l.Busy, l.PeakMB, l.Parts)
		}
		_ = w.Flush()
	}
	if r.Idle.Events > 0 {
		fmt.Fprintf(out, "single event to an idle system: p50 %.0f ms, highest %.0f ms\n", r.Idle.P50, r.Idle.Max)
	}
	if b := r.Restart; b.Events > 0 {
		fmt.Fprintf(out, "restart with %d events behind, %d/s coming: %.0f events/s, %.1f times the live rate, level after %.1f s\n", b.Events, b.Live, b.Rate, b.Multiple, b.Seconds)
	}
}
