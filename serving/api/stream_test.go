package api_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"watershed/serving/api"
)

// TestLateErrorsBreakTheTransfer fails queries after more was sent than is held back.
func TestLateErrorsBreakTheTransfer(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	for _, format := range []string{"csv", "ndjson", "json"} {
		r := w.request(t, http.MethodPost, "/v1/sql?format="+format, "text/plain", "SELECT repeat('x', 100) AS x, throwIf(number = 900000) AS y FROM numbers(1000000)")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusOK || n < 256<<10 || err == nil {
			t.Errorf("%s: status %d, %d bytes, error %v; want 200, more than 256 KiB, and a broken transfer", format, resp.StatusCode, n, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFlipWhileAnalysing flips between what was read before a query and what is read after it.
func TestFlipWhileAnalysing(t *testing.T) {
	w := newWorld(t)
	var once sync.Once
	w.reader = flipping{w.reader, func() { once.Do(func() { w.flip(t, 2) }) }}
	w.serve(t, api.Config{})
	got := w.get(t, "/v1/views/departures?dimensions=&measures=flights&format=csv")
	want := "\"flights\"\n" + w.admin.must(t, "SELECT count() FROM events WHERE time < '2001-06-03'")
	if got.body != want || got.header.Get("Watershed-Build") != "2" {
		t.Errorf("build %s: %s; want build 2: %s", got.header.Get("Watershed-Build"), got.body, want)
	}
}

// TestFlipWhileStreaming flips when the answer has begun: it stays with the build that it named.
func TestFlipWhileStreaming(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	sql := "SELECT d.hour, n.number, repeat('x', 40) FROM departures AS d CROSS JOIN numbers(300) AS n"
	resp, err := http.DefaultClient.Do(w.request(t, http.MethodPost, "/v1/sql?format=csv", "text/plain", sql))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	w.flip(t, 2)
	lines := 0
	scan := bufio.NewScanner(resp.Body)
	for scan.Scan() {
		if lines > 0 && !strings.HasPrefix(scan.Text(), `"2001-06-01 `) {
			t.Fatalf("a row of build 2: %s", scan.Text())
		}
		lines++
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	groups, err := strconv.Atoi(strings.TrimSpace(w.admin.must(t, "SELECT count() FROM batch FINAL WHERE slice = 1")))
	if err != nil {
		t.Fatal(err)
	}
	if b := resp.Header.Get("Watershed-Build"); b != "1" || lines-1 != groups*300 {
		t.Errorf("build %s, %d rows; want build 1, %d", b, lines-1, groups*300)
	}
}

// TestDisconnectKillsTheQuery leaves while ClickHouse works, and while it sends.
func TestDisconnectKillsTheQuery(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	const running = "SELECT count() FROM system.processes WHERE user = 'reader' AND query LIKE '%leave me%'"
	t.Run("working", func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() {
			resp, err := http.DefaultClient.Do(w.request(t, http.MethodPost, "/v1/sql?timeout=60", "", "SELECT sum(sipHash64(number)) /* leave me */ FROM numbers(100000000000000)").WithContext(ctx))
			if err == nil {
				t.Errorf("status %s of a request that was given up", resp.Status)
				resp.Body.Close()
			}
		})
		w.until(t, running, "1\n")
		leave()
		wait.Wait()
		w.until(t, running, "0\n")
	})
	t.Run("sending", func(t *testing.T) {
		resp, err := http.DefaultClient.Do(w.request(t, http.MethodPost, "/v1/sql?timeout=60&rows=10000000&format=csv", "", "SELECT number, repeat('x', 1000) /* leave me */ FROM numbers(9000000)"))
		if err != nil {
			t.Fatal(err)
		}
		w.until(t, running, "1\n")
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		w.until(t, running, "0\n")
	})
}
