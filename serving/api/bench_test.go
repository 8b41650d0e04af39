package api_test

import (
	"io"
	"net/http"
	"testing"

	"watershed/serving/api"
)

// BenchmarkTypedQuery is a small typed query, over a connection that is kept.
func BenchmarkTypedQuery(b *testing.B) {
	w := newWorld(b).serve(b, api.Config{})
	for b.Loop() {
		if got := w.get(b, "/v1/views/departures?dimensions=origin&measures=flights"); got.status != http.StatusOK {
			b.Fatal(got.body)
		}
	}
}

// BenchmarkStream is a long result in each format; bytes are those of the answer.
func BenchmarkStream(b *testing.B) {
	w := newWorld(b).serve(b, api.Config{})
	for _, format := range []string{"json", "csv", "ndjson"} {
		b.Run(format, func(b *testing.B) {
			for b.Loop() {
				resp, err := http.DefaultClient.Do(w.request(b, http.MethodPost, "/v1/sql?format="+format, "", "SELECT number, toString(number) AS text, number / 3 AS third FROM numbers(500000)"))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				if err != nil || resp.Body.Close() != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
			b.ReportMetric(500000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
