package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"watershed/internal/devserver"
)

// TestDemo runs the demo as a user does. What it must find is what the demo itself asks
// ClickHouse of the source file; the test looks at whether everything was asked, and equal.
func TestDemo(t *testing.T) {
	t.Parallel()
	if _, err := devserver.FlightsPath(); err != nil {
		t.Fatal(err)
	}
	env := []string{"XDG_DATA_HOME=" + dataHome(t)}
	stdout, stderr, code := command(t, env, "demo", "--exit", "--json", "--dir", filepath.Join(t.TempDir(), "demo"))
	if code != exitOK {
		t.Fatalf("exit code %d; want 0; it said:\n%s", code, stderr)
	}
	dec := json.NewDecoder(bytes.NewReader(stdout))
	dec.DisallowUnknownFields()
	var r demoReport
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("standard output is not the report: %v\n%s", err, stdout)
	}
	if dec.More() {
		t.Errorf("standard output holds more than one JSON object")
	}
	documentedKeys(t, stdout)
	if total := r.HistoryEvents + r.PublishedEvents; total != 3_000_000 {
		t.Errorf("%d + %d events; want the 3,000,000 of the source", r.HistoryEvents, r.PublishedEvents)
	}
	stages := []string{"history", "merged", "all from history"}
	if want := len(stages) * len(questions); len(r.Checks) != want {
		t.Errorf("%d checks; want %d", len(r.Checks), want)
	}
	for i, c := range r.Checks {
		want := stages[i/len(questions)] + ": " + questions[i%len(questions)].name
		if c.Name != want || !c.OK || c.Got != c.Want || c.Got == "" {
			t.Errorf("check %d is %+v; want %q, and equal", i, c, want)
		}
	}
	views := make(map[string]uint64)
	for _, audit := range r.Audit {
		if audit.Drifted != 0 {
			t.Errorf("audit of build %d: %s", audit.Build, auditLine(audit))
		}
		views[audit.View] += audit.Groups
	}
	for _, name := range []string{"airports", "days", "departures_by_hour", "routes_by_day"} {
		if views[name] == 0 {
			t.Errorf("view %s was never compared with what the speed layer showed", name)
		}
	}
	for _, line := range []string{"is live after", "all visible after", "all 18 answers equal"} {
		if !bytes.Contains(stderr, []byte(line)) {
			t.Errorf("the story does not say %q", line)
		}
	}
}

// documentedKeys holds the report against the keys that others rely on.
func documentedKeys(t *testing.T, report []byte) {
	t.Helper()
	var got map[string]json.RawMessage
	if err := json.Unmarshal(report, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"history_events", "published_events", "build", "checks", "audit", "seconds"} {
		if _, ok := got[key]; !ok {
			t.Errorf("the report has no %s", key)
		}
	}
	var seconds map[string]float64
	if err := json.Unmarshal(got["seconds"], &seconds); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"start", "import", "first_batch", "june", "second_batch", "total"} {
		if seconds[key] <= 0 {
			t.Errorf("seconds.%s is %v", key, seconds[key])
		}
	}
}

// TestDemoRefusesUsedDirectory: what an earlier run left would be counted again.
func TestDemoRefusesUsedDirectory(t *testing.T) {
	_, stderr, code := command(t, []string{"XDG_DATA_HOME=" + dataHome(t)}, "demo", "--exit", "--dir", filepath.Dir(t.TempDir()))
	if code != exitUsage || !strings.Contains(string(stderr), "is not empty") {
		t.Errorf("exit code %d, %q; want %d and a word about the directory", code, stderr, exitUsage)
	}
}

// TestDemoStaysUp: what it says when it does not leave names commands that exist.
func TestDemoStaysUp(t *testing.T) {
	f := func(asJSON bool) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		d := &demo{a: &app{stdout: &stdout, stderr: &stderr}, json: asJSON, endpoint: "127.0.0.1:1"}
		if err := d.finish(false); err != nil {
			t.Fatal(err)
		}
		story := stdout.String()
		if asJSON {
			story = stderr.String()
			if !json.Valid(stdout.Bytes()) {
				t.Errorf("standard output is not JSON alone: %s", &stdout)
			}
		}
		tried := 0
		for line := range strings.Lines(story) {
			fields := strings.Fields(line)
			if len(fields) > 1 && fields[0] == os.Args[0] {
				if cmd, _, err := d.a.root().Find(fields[1:2]); err != nil || cmd.Name() != fields[1] {
					t.Errorf("there is no command %s", fields[1])
				}
				tried++
			}
		}
		if tried < 2 || !strings.Contains(story, "http://127.0.0.1:1") {
			t.Errorf("it says %q; want an address and commands to try", story)
		}
	}
	f(false)
	f(true)
}
