package api_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watershed/internal/ingest"
	"watershed/serving/api"
)

// BenchmarkPublishOneEvent has 64 connections that publish one event after the other; the clients take their share of
// the processors.
func BenchmarkPublishOneEvent(b *testing.B) {
	w := receiver(b, api.Config{}, ingest.Config{}, 1<<30)
	const connections = 64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	took := make([][]time.Duration, connections)
	b.ResetTimer()
	var wait sync.WaitGroup
	for c := range connections {
		wait.Go(func() {
			for id := next.Add(1); id <= int64(b.N); id = next.Add(1) {
				began := time.Now()
				resp, err := client.Post(w.url+"/v1/events/gate", lines, strings.NewReader(gate(int(id))))
				if err != nil {
					b.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusAccepted {
					b.Errorf("status %d, %v", resp.StatusCode, err)
					return
				}
				took[c] = append(took[c], time.Since(began))
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(all[(len(all)-1)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}
