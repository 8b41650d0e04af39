package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"watershed/internal/ingest"
)

// IngestMetrics count what is taken in.
type IngestMetrics struct {
	requests *prometheus.CounterVec
	events   *prometheus.CounterVec
	rejected *prometheus.CounterVec
	bytes    prometheus.Counter
	seconds  prometheus.Histogram
}

// NewIngestMetrics returns metrics that several endpoints of a process may show.
func NewIngestMetrics() *IngestMetrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watershed_ingest_" + name, Help: help}, []string{label})
	}
	return &IngestMetrics{
		requests: counter("requests_total", "Requests that published events over HTTP, or were to.", "status"),
		events:   counter("events_total", "Events that were published over HTTP.", "type"),
		rejected: counter("rejected_total", "Rows that did not fit their type.", "type"),
		bytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "watershed_ingest_bytes_total", Help: "Bytes of bodies, unpacked."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "watershed_ingest_request_seconds", Help: "Time from the first byte of a body to the log's acknowledgement.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
	}
}

func (m *IngestMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.events, m.rejected, m.bytes, m.seconds}
}

// count counts one request. Types that are not defined have no label: anybody may name any.
func (m *IngestMetrics) count(eventType string, r ingest.Result, took time.Duration, err error) {
	status := http.StatusAccepted
	var p *Problem
	if errors.As(err, &p) {
		status = p.Status
	}
	m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	m.seconds.Observe(took.Seconds())
	m.bytes.Add(float64(r.Bytes))
	if r.Accepted > 0 {
		m.events.WithLabelValues(eventType).Add(float64(r.Accepted))
	}
	if r.Rejected > 0 {
		m.rejected.WithLabelValues(eventType).Add(float64(r.Rejected))
	}
}
