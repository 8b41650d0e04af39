package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/nats-io/nats.go"
	"github.com/parquet-go/parquet-go"
	"github.com/rogpeppe/go-internal/testscript"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
)

// patience bounds every wait of a script. What is waited for takes a second or two; the rest
// is for machines on which many packages are tested at once, with the race detector.
const patience = 120 * time.Second

// TestMain lets the test binary be three programs: the tests, the command (testscript starts
// it under that name), and the ClickHouse that the command starts.
func TestMain(m *testing.M) {
	devserver.Child()
	testscript.Main(m, map[string]func(){"watershed": main})
}

// TestScripts runs testdata/script: the commands as a user sees them, on real engines.
func TestScripts(t *testing.T) {
	testscript.Run(t, scripts(t, "testdata/script"))
}

// scripts are the scripts of a directory, with the commands that they have besides testscript's own.
func scripts(t *testing.T, dir string) testscript.Params {
	t.Helper()
	return testscript.Params{
		Dir:                 dir,
		Setup:               setup(t),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"engines":  startEngines,
			"flip":     flipByte,
			"freeport": freePort,
			"healthy":  healthyLogged,
			"metrics":  scrapeDocumented(string(readRepository(t, "docs/RUNBOOK.md"))),
			"natspub":  natsPublish,
			"parquet":  writeParquet,
			"http":     httpAsk,
			"statusof": statusUntil,
			"asks":     askLogged,
			"emptied":  emptyTable,
			"spoiled":  spoilTable,
			"ready":    waitReady,
			"settled":  settled,
			"truncate": truncateFile,
			"until":    until,
		},
	}
}

// setup gives a script the installed engine, wherever its own directory lies.
func setup(t *testing.T) func(*testscript.Env) error {
	data := dataHome(t)
	return func(env *testscript.Env) error {
		env.Setenv("XDG_DATA_HOME", data)
		return nil
	}
}

// dataHome is a user's data directory in which npm has installed the engine.
func dataHome(t *testing.T) string {
	t.Helper()
	library, err := devserver.Library("")
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Dir(filepath.Dir(filepath.Dir(library)))
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "watershed"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(data, "watershed", "node_modules")); err != nil {
		t.Fatal(err)
	}
	return data
}

// startEngines starts servers as an operator would, and gives the script their addresses in
// the environment: engines DATABASE.
func startEngines(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nats, err := devserver.StartNATS(ctx, devserver.NATSConfig{Dir: ts.MkAbs("nats")})
	ts.Check(err)
	ts.Defer(func() { ts.Check(nats.Close()) })
	cfg := devtest.Config(ts.MkAbs("clickhouse"))
	cfg.LibPath = filepath.Join(ts.Getenv("XDG_DATA_HOME"), "watershed", "node_modules", "@chdb", "lib-linux-x64-gnu", "libchdb.so")
	clickhouse, err := devserver.StartClickHouse(ctx, cfg)
	ts.Check(err)
	ts.Defer(func() { ts.Check(clickhouse.Close()) })
	admin, adminPassword := clickhouse.Admin()
	reader, readerPassword := clickhouse.Reader()
	for name, value := range map[string]string{
		"NATS": nats.URL(), "CLICKHOUSE": clickhouse.Addr(), "DATABASE": args[0], "HISTORY": ts.MkAbs("history"),
		"CLICKHOUSE_USER": admin, "CLICKHOUSE_PASSWORD": adminPassword,
		"READER_USER": reader, "READER_PASSWORD": readerPassword,
	} {
		ts.Setenv("WATERSHED_"+name, value)
	}
}

// freePort lets the endpoint listen, and clients ask, at an address that is free.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv("WATERSHED_LISTEN", l.Addr().String())
	ts.Check(l.Close())
}

// readRunning reads what an `up` says of itself.
func readRunning(ts *testscript.TestScript, dir string) (r runningUp) {
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(filepath.Join(dir, runningFile))), &r))
	return r
}

// A runningUp is what scripts need of running.json.
type runningUp struct {
	NATS               string `json:"nats"`
	Endpoint           string `json:"endpoint"`
	ClickHouse         string `json:"clickhouse"`
	ClickHouseUser     string `json:"clickhouse_user"`
	ClickHousePassword string `json:"clickhouse_password"`
}

// waitReady waits until the endpoint of the `up` on a directory, or one at an address, says
// that it is ready: ready DIR | ready ADDRESS.
func waitReady(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	poll(ts, "the endpoint of "+args[0]+" to be ready", func() (bool, string) {
		addr := args[0]
		if !strings.Contains(addr, ":") {
			b, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), runningFile))
			if err != nil {
				return false, err.Error()
			}
			var r runningUp
			ts.Check(json.Unmarshal(b, &r)) // it is written whole
			addr = r.Endpoint
		}
		resp, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		ts.Check(err)
		return resp.StatusCode == http.StatusOK, string(body)
	})
}

// until runs a command again and again until its output matches: until REGEXP COMMAND...
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND...")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	poll(ts, args[0]+" in what "+strings.Join(args[1:], " ")+" prints", func() (bool, string) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		return err == nil && want.MatchString(out), out
	})
}

// settled runs a command again and again until it succeeds: what it prints then must match. As long
// as it fails, its message must match too: settled REGEXP WHILE COMMAND...
func settled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: settled REGEXP WHILE COMMAND...")
	}
	want, while := regexp.MustCompile("(?m)"+args[0]), regexp.MustCompile("(?m)"+args[1])
	poll(ts, "an answer of "+strings.Join(args[2:], " "), func() (bool, string) {
		err := ts.Exec(args[2], args[3:]...)
		out, msg := ts.ReadFile("stdout"), ts.ReadFile("stderr")
		switch {
		case err == nil && !want.MatchString(out):
			ts.Fatalf("the answer is %s; want %s, or none", out, args[0])
		case err != nil && !while.MatchString(msg):
			ts.Fatalf("it fails with %s; want %s", msg, args[1])
		}
		return err == nil, msg
	})
}

// emptyTable loses the rows of a view's table, in the ClickHouse of the `up` on a directory:
// emptied DIR VIEW batch|speed.
func emptyTable(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 3)
	r := readRunning(ts, args[0])
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{r.ClickHouse}, Auth: clickhouse.Auth{Username: r.ClickHouseUser, Password: r.ClickHousePassword},
	})
	ts.Check(err)
	defer conn.Close()
	var table string
	ts.Check(conn.QueryRow(context.Background(), "SELECT name FROM system.tables WHERE database = 'watershed' AND match(name, {name:String})",
		clickhouse.Named("name", "^"+args[1]+"__[0-9a-f]+__"+args[2]+"$")).Scan(&table))
	ts.Check(conn.Exec(context.Background(), "TRUNCATE TABLE watershed."+table))
}

func poll(ts *testscript.TestScript, what string, try func() (bool, string)) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, last := try()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			ts.Fatalf("waited %s for %s; last:\n%s", patience, what, last)
		case <-tick.C:
		}
	}
}

// natsPublish publishes as a producer that knows nothing of Watershed:
// natspub DIR SUBJECT PAYLOAD.
func natsPublish(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 3)
	conn, err := nats.Connect(readRunning(ts, args[0]).NATS)
	ts.Check(err)
	defer conn.Close()
	js, err := conn.JetStream()
	ts.Check(err)
	_, err = js.Publish(args[1], []byte(args[2]))
	ts.Check(err)
}

// httpAsk asks the endpoint of the `up` on a directory; the answer, with its status and
// headers, is standard output: http DIR METHOD PATH [BODY].
func httpAsk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: http DIR METHOD PATH [BODY]")
	}
	body := ""
	if len(args) == 4 {
		body = args[3]
	}
	req, err := http.NewRequest(args[1], "http://"+readRunning(ts, args[0]).Endpoint+args[2], strings.NewReader(body))
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	ts.Check(resp.Write(ts.Stdout()))
}

// statusUntil waits until the status of the `up` on a directory, as its endpoint tells it, matches:
// statusof DIR REGEXP.
func statusUntil(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2)
	want := regexp.MustCompile(args[1])
	poll(ts, args[1]+" in the status", func() (bool, string) {
		resp, err := http.Get("http://" + readRunning(ts, args[0]).Endpoint + "/v1/status")
		if err != nil {
			return false, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		ts.Check(err)
		return want.Match(body), string(body)
	})
}

// A flight is a row of the Parquet files that scripts import.
type flight struct {
	ID          string `parquet:"id"`
	Time        int64  `parquet:"time,timestamp(microsecond)"`
	Origin      string `parquet:"origin"`
	Destination string `parquet:"destination"`
	Delay       int64  `parquet:"delay"`
}

// A textFlight has its delay as text, which no import takes for a number.
type textFlight struct {
	ID          string `parquet:"id"`
	Time        int64  `parquet:"time,timestamp(microsecond)"`
	Origin      string `parquet:"origin"`
	Destination string `parquet:"destination"`
	Delay       string `parquet:"delay"`
}

// writeParquet writes a file of five flights on 2001-07-02 (parquet good FILE), or one with
// text where a number must be (parquet wrong-type FILE).
func writeParquet(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2)
	at := time.Date(2001, time.July, 2, 6, 0, 0, 0, time.UTC).UnixMicro()
	var good []flight
	for i := range 5 {
		good = append(good, flight{fmt.Sprintf("p%d", i), at, "DEN", "BOS", int64(10 * i)})
	}
	switch args[0] {
	case "good":
		ts.Check(parquet.WriteFile(ts.MkAbs(args[1]), good))
	case "wrong-type":
		ts.Check(parquet.WriteFile(ts.MkAbs(args[1]), []textFlight{{"p0", at, "DEN", "BOS", "late"}}))
	default:
		ts.Fatalf("no such kind of file: %s", args[0])
	}
}

// truncateFile leaves the first half of a file: truncate FROM TO.
func truncateFile(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2)
	b := []byte(ts.ReadFile(args[0]))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b[:len(b)/2], 0o600))
}

// flipByte changes one bit of the first file that matches, in its middle or inside the last page of a
// column: flip PATTERN [COLUMN].
func flipByte(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: flip PATTERN [COLUMN]")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file matches %s", args[0])
	}
	b, err := os.ReadFile(files[0])
	ts.Check(err)
	at := int64(len(b) / 2)
	if len(args) == 2 {
		at = lastOfColumn(ts, b, args[1])
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(files[0], b, 0o600))
}

// lastOfColumn is where the last byte of a column's last page lies in a Parquet file of one row group.
func lastOfColumn(ts *testscript.TestScript, file []byte, column string) int64 {
	f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	ts.Check(err)
	for _, c := range f.Metadata().RowGroups[0].Columns {
		if m := c.MetaData; m.PathInSchema[0] == column {
			begin := m.DataPageOffset
			if d := m.DictionaryPageOffset; d > 0 {
				begin = min(begin, d)
			}
			return begin + m.TotalCompressedSize - 1
		}
	}
	ts.Fatalf("no column %s", column)
	return 0
}

func wantArgs(ts *testscript.TestScript, neg bool, args []string, n int) {
	if neg || len(args) != n {
		ts.Fatalf("want %d arguments, got %q", n, args)
	}
}

// command runs the program as its own process, for tests that are not scripts.
func command(t *testing.T, env []string, args ...string) (stdout, stderr []byte, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "watershed", args...) // testscript put it into PATH
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), env...)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.Bytes(), msg.Bytes(), cmd.ProcessState.ExitCode()
}
