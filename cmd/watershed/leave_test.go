package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
)

// TestLeaveAbandons: a role that does not end holds nobody up, and one that does ends in its own time.
func TestLeaveAbandons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &app{log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		stopped, stop := context.WithCancel(t.Context())
		stop()
		end := make(chan struct{})
		defer close(end)
		began := time.Now()
		err := a.leave(stopped, "stuck", func(context.Context) error { <-end; return nil })
		if took := time.Since(began); err == nil || took != leaveWithin {
			t.Errorf("left after %s with %v; want an error after %s", took, err, leaveWithin)
		}
		began = time.Now()
		err = a.leave(stopped, "slow", func(context.Context) error {
			<-time.After(leaveWithin / 2) // of the bubble's clock
			return nil
		})
		if took := time.Since(began); err != nil || took != leaveWithin/2 {
			t.Errorf("left after %s with %v; want no error after %s", took, err, leaveWithin/2)
		}
	})
}

// A process is the program as its own process, whose log is read while it runs.
type process struct {
	cmd  *exec.Cmd
	log  string
	left chan error
}

func startProcess(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own
	p := &process{cmd: exec.Command("watershed", append(args, "--log-format", "json")...), log: log.Name(), left: make(chan error, 1)}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = t.TempDir(), append(os.Environ(), env...), log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.left <- p.cmd.Wait(); close(p.left) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has left, unless the test failed
		<-p.left
	})
	return p
}

// terminate asks the process to stop, and wants it to have left in order: within the bound, by its own word.
func (p *process) terminate(t *testing.T, role string) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case err := <-p.left:
		if err != nil {
			t.Errorf("%s left with %v:\n%s", role, err, p.text(t))
		}
	case <-deadline.C:
		t.Fatalf("%s has not left:\n%s", role, p.text(t))
	}
	for line := range strings.Lines(p.text(t)) {
		var said struct {
			Msg, Role string
			Seconds   float64
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "stopped" && said.Role == role {
			if said.Seconds > leaveWithin.Seconds() {
				t.Errorf("%s took %v s to stop; want %s at most", role, said.Seconds, leaveWithin)
			}
			return
		}
	}
	t.Errorf("%s does not say that it stopped in order:\n%s", role, p.text(t))
}

func (p *process) text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestStopWhileEventsFlow stops the worker again and again under a stream of events: it leaves within the bound, and in
// the end every event counts once.
func TestStopWhileEventsFlow(t *testing.T) {
	ctx := t.Context()
	nats, err := devserver.StartNATS(ctx, devserver.NATSConfig{Dir: filepath.Join(t.TempDir(), "nats")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nats.Close(); err != nil {
			t.Error(err)
		}
	})
	server := devtest.SharedClickHouse(t)
	user, password := server.Admin()
	const database = "watershed_leave"
	definitions := t.TempDir()
	if err := os.WriteFile(filepath.Join(definitions, "departure.yaml"), []byte(departures), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"XDG_DATA_HOME=" + dataHome(t), "WATERSHED_NATS=" + nats.URL(), "WATERSHED_CLICKHOUSE=" + server.Addr(), "WATERSHED_DATABASE=" + database,
		"WATERSHED_CLICKHOUSE_USER=" + user, "WATERSHED_CLICKHOUSE_PASSWORD=" + password, "WATERSHED_HISTORY=" + filepath.Join(t.TempDir(), "history"), "WATERSHED_DEFINITIONS=" + definitions,
	}
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{server.Addr()}, Auth: clickhouse.Auth{Username: user, Password: password}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+database); err != nil {
			t.Error(err)
		}
		conn.Close()
	})
	shown := func() (n uint64) {
		if err := conn.QueryRow(ctx, "SELECT toUInt64(sum(flights)) FROM "+database+".days").Scan(&n); err != nil {
			return 0 // there is no view yet
		}
		return n
	}
	wait := func(p *process, what string, ok func() bool) {
		t.Helper()
		deadline, tick := time.NewTimer(patience), time.NewTicker(50*time.Millisecond)
		defer deadline.Stop()
		defer tick.Stop()
		for !ok() {
			select {
			case <-deadline.C:
				t.Fatalf("waited %s for %s; %d are shown:\n%s", patience, what, shown(), p.text(t))
			case err := <-p.left:
				t.Fatalf("the worker left with %v:\n%s", err, p.text(t))
			case <-tick.C:
			}
		}
	}

	p := startProcess(t, env, "speed")
	wait(p, "the views", func() bool {
		return conn.QueryRow(ctx, "SELECT count() FROM "+database+".days").Err() == nil
	})
	log, err := eventlog.Open(ctx, eventlog.Config{URL: nats.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	var published atomic.Uint64
	var enough atomic.Bool
	var producer sync.WaitGroup
	defer producer.Wait()
	defer enough.Store(true)
	producer.Go(func() {
		for !enough.Load() {
			from := published.Load()
			if err := publishFlights(ctx, log, from, 20); err != nil {
				t.Error(err)
				return
			}
			published.Store(from + 20)
		}
	})
	for round := range 4 {
		before := published.Load()
		wait(p, "fresh events", func() bool { return shown() > before })
		p.terminate(t, "speed")
		if round < 3 {
			p = startProcess(t, env, "speed")
		}
	}
	enough.Store(true)
	producer.Wait()
	p = startProcess(t, env, "speed")
	wait(p, "all events", func() bool { return shown() >= published.Load() })
	p.terminate(t, "speed")
	if got, want := shown(), published.Load(); got != want {
		t.Errorf("%d events are shown; want the %d that were published", got, want)
	}
}

// TestStopUpWhileEventsFlow stops everything, engines and all, while events come in over HTTP. What was acknowledged is
// there afterwards, and what was not is sent again and counts once.
func TestStopUpWhileEventsFlow(t *testing.T) {
	dir, definitions := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(definitions, "departure.yaml"), []byte(departures), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"XDG_DATA_HOME=" + dataHome(t)}
	args := []string{"up", "--dir", dir, "--definitions", definitions, "--listen", "127.0.0.1:0", "--nightly", "off", "--ingest=true"}
	const perRequest = 20
	var sent atomic.Uint64 // and acknowledged
	ask := func(path, media, body string, status int) ([]byte, error) {
		r, ok, err := findRunning(dir)
		if err != nil || !ok {
			return nil, fmt.Errorf("it does not run (%w)", err)
		}
		resp, err := http.Post("http://"+r.Endpoint+path, media, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != status {
			err = fmt.Errorf("%s: %s", resp.Status, answer)
		}
		return answer, err
	}
	wait := func(p *process, what string, ok func() error) {
		t.Helper()
		deadline, tick := time.NewTimer(patience), time.NewTicker(50*time.Millisecond)
		defer deadline.Stop()
		defer tick.Stop()
		for err := ok(); err != nil; err = ok() {
			select {
			case <-deadline.C:
				t.Fatalf("waited %s for %s; last: %v\n%s", patience, what, err, p.text(t))
			case left := <-p.left:
				t.Fatalf("up left with %v:\n%s", left, p.text(t))
			case <-tick.C:
			}
		}
	}
	shown := func(at func(n uint64) bool) error {
		answer, err := ask("/v1/sql?format=csv", "text/plain", "SELECT toUInt64(sum(flights)) AS n FROM days", http.StatusOK)
		if err != nil {
			return err
		}
		var n uint64
		lines := strings.Fields(string(answer))
		if _, err := fmt.Sscan(lines[len(lines)-1], &n); err != nil || !at(n) {
			return fmt.Errorf("%d are shown of %d (%v)", n, sent.Load(), err)
		}
		return nil
	}
	send := func() error {
		from := sent.Load()
		_, err := ask("/v1/events/departure", "application/x-ndjson", flightLines(from, perRequest), http.StatusAccepted)
		if err == nil {
			sent.Store(from + perRequest)
		}
		return err
	}
	for range 2 {
		p := startProcess(t, env, args...)
		wait(p, "a first event", send)
		var producer sync.WaitGroup
		producer.Go(func() {
			for send() == nil { // until it stops: the next round begins with what was not acknowledged
			}
		})
		before := sent.Load()
		wait(p, "fresh events", func() error { return shown(func(n uint64) bool { return n > before }) })
		p.terminate(t, "up")
		producer.Wait()
	}
	p := startProcess(t, env, args...)
	wait(p, "the last events", send)
	wait(p, "all events", func() error { return shown(func(n uint64) bool { return n >= sent.Load() }) })
	if err := shown(func(n uint64) bool { return n == sent.Load() }); err != nil {
		t.Error(err)
	}
	p.terminate(t, "up")
}

const departures = `
event: departure
id: id
time: time
fields: {id: string, time: timestamp, origin: string}
---
view: days
from: departure
dimensions: {day: 'bucket(time, "1d")'}
measures: {flights: count()}
`

// publishFlights publishes events whose ids are consecutive numbers.
func publishFlights(ctx context.Context, log *eventlog.Log, from, n uint64) error {
	_, err := log.Publish(ctx, "departure", []byte(flightLines(from, n)), "")
	return err
}

func flightLines(from, n uint64) string {
	var lines strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&lines, `{"id":"f%d","time":"2001-07-01T08:00:00Z","origin":"SFO"}`+"\n", i)
	}
	return lines.String()
}
