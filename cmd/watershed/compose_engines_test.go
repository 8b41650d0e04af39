package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"watershed/internal/devserver"
)

// TestComposeRuns starts NATS and ClickHouse with the very configs of docker-compose.yml, and
// on them our three services with their own commands and environment. What differs from the
// containers: host names, ports and directories.
func TestComposeRuns(t *testing.T) {
	t.Setenv("NATS_PASSWORD", "nats-password-0123")
	c := readCompose(t)
	dir := t.TempDir()
	nats := composeNATS(t, c, filepath.Join(dir, "nats"))
	native, httpAddr := composeClickHouse(t, c, filepath.Join(dir, "clickhouse"))
	listen := freeAddress(t)
	admin := map[string]string{"worker": freeAddress(t), "endpoint": freeAddress(t)}
	env := func(service string) []string {
		replace := strings.NewReplacer(
			"${NATS_PASSWORD:?set NATS_PASSWORD}@nats:4222", "nats-password-0123@"+nats,
			"clickhouse:9000", native,
			"${CLICKHOUSE_PASSWORD:?set CLICKHOUSE_PASSWORD}", "writer-password",
			"${READER_PASSWORD:?set READER_PASSWORD}", "reader-password",
			"${WATERSHED_TOKEN:?set WATERSHED_TOKEN}", "token-of-16-or-more",
			"0.0.0.0:8485", admin[service],
			"/data/history", filepath.Join(dir, "history"),
		)
		var out []string
		for name, value := range c.Services[service].Environment {
			if value = replace.Replace(value); name == "WATERSHED_DEFINITIONS" { // as the Dockerfile copies them
				value = absolute(t, filepath.Join(repository, "schemas/examples/flights"))
			}
			out = append(out, name+"="+value)
		}
		return out
	}
	runService(t, env("worker"), c.Services["worker"].Command...)
	healthy := func(service string) (bool, string) {
		test := c.Services[service].HealthCheck.Test
		out, msg, code := command(t, env(service), test[2:]...)
		return code == exitOK, string(out) + string(msg)
	}
	eventually(t, "a healthy worker", func() (bool, string) { return healthy("worker") })
	eventually(t, "definitions in the log", func() (bool, string) {
		stdout, stderr, _ := command(t, env("worker"), "status", "--json")
		return bytes.Contains(stdout, []byte(`"cut": 1`)), string(stdout) + string(stderr)
	})

	// What the ports and the token are in the container, the address is here.
	serve := strings.Split(strings.ReplaceAll(strings.Join(c.Services["endpoint"].Command, "\n"), "0.0.0.0:8484", listen), "\n")
	runService(t, env("endpoint"), serve...)
	eventually(t, "a ready endpoint", func() (bool, string) { return askEndpoint(t, listen, "GET", "/readyz", "") })
	eventually(t, "a healthy endpoint", func() (bool, string) { return healthy("endpoint") })

	stdout, stderr, code := command(t, env("batch"), c.Services["batch"].Command...)
	if code != exitOK || !bytes.Contains(stdout, []byte(`"flipped": true`)) {
		t.Errorf("batch: exit code %d\n%s%s", code, stdout, stderr)
	}
	if ok, msg := askEndpoint(t, listen, "POST", "/v1/sql", "SELECT count() FROM days"); !ok {
		t.Errorf("SQL: %s", msg)
	}
	for _, sql := range []string{
		"SELECT * FROM system.users", "SELECT * FROM url('http://127.0.0.1:1', CSV, 'a String')", "CREATE TABLE x (a Int8) ENGINE = Memory",
		"SELECT count() FROM days SETTINGS max_execution_time = 200", "INSERT INTO live_in SELECT * FROM live",
	} {
		if ok, msg := askEndpoint(t, listen, "POST", "/v1/sql", sql); ok || !strings.Contains(msg, `"forbidden"`) {
			t.Errorf("%s: got %s; want it refused", sql, msg)
		}
	}
	image := strings.TrimPrefix(c.Services["clickhouse"].Image, "clickhouse/clickhouse-server:")
	if got := clickHouseAnswer(t, httpAddr, "SELECT version()"); !strings.HasPrefix(got, image+".") {
		t.Errorf("the image is ClickHouse %s, the tests run %s", image, got)
	}
}

// composeNATS starts NATS with the file's config; it returns host:port.
func composeNATS(t *testing.T, c composeFile, dir string) string {
	t.Helper()
	o := natsOptions(t, c)
	o.Host, o.Port, o.HTTPPort, o.StoreDir, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, 0, dir, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatalf("start NATS: %v", err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not accept connections")
	}
	return s.Addr().String()
}

// composeClickHouse starts ClickHouse with the file's configs put over a plain one, as the
// image does. The embedded engine needs the user "default" for its own queries, which the
// file removes; so that one line is left out.
func composeClickHouse(t *testing.T, c composeFile, dir string) (native, httpAddr string) {
	t.Helper()
	const remove = `<default remove="remove"/>`
	users := c.content(t, "clickhouse_users")
	if !strings.Contains(users, remove) {
		t.Errorf("the user without a password stays")
	}
	for name, text := range map[string]string{
		"config.xml":             "<clickhouse><users_config>users.xml</users_config><logger><console>1</console></logger></clickhouse>",
		"users.xml":              "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><no_password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users></clickhouse>",
		"config.d/watershed.xml": c.content(t, "clickhouse_server"),
		"users.d/watershed.xml":  strings.Replace(users, remove, "", 1),
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	library, err := devserver.Library("")
	if err != nil {
		t.Fatal(err)
	}
	native, httpAddr = freeAddress(t), freeAddress(t)
	var output bytes.Buffer
	cmd := exec.Command(os.Args[0], library, "clickhouse",
		"--config-file="+filepath.Join(dir, "config.xml"), "--path="+filepath.Join(dir, "data"), "--listen_host=127.0.0.1",
		"--tcp_port="+portOf(t, native), "--http_port="+portOf(t, httpAddr),
		"--input-format", "LineAsString", "--structure", "line String",
		"--query", "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT count() FROM table")
	cmd.Dir = dir
	cmd.Env = []string{"WATERSHED_CLICKHOUSE_CHILD=1", "TZ=UTC", "HOME=" + dir, "CLICKHOUSE_PASSWORD=writer-password", "READER_PASSWORD=reader-password"}
	cmd.Stdout, cmd.Stderr = &output, &output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	t.Cleanup(func() {
		stdin.Close() // its order to stop
		if err := <-gone; err != nil {
			t.Errorf("ClickHouse: %v\n%s", err, output.Bytes())
		}
	})
	eventually(t, "ClickHouse", func() (bool, string) {
		select {
		case err := <-gone:
			gone <- err
			t.Fatalf("ClickHouse ended: %v\n%s", err, output.Bytes())
		default:
		}
		resp, err := http.Get("http://" + httpAddr + "/ping")
		if err != nil {
			return false, err.Error()
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
	return native, httpAddr
}

func clickHouseAnswer(t *testing.T, addr, sql string) string {
	t.Helper()
	req, err := http.NewRequest("POST", "http://"+addr+"/", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-ClickHouse-User", "watershed")
	req.Header.Set("X-ClickHouse-Key", "writer-password")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

// askEndpoint asks with the token; ok is status 200.
func askEndpoint(t *testing.T, addr, method, path, body string) (ok bool, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer token-of-16-or-more")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK, fmt.Sprintf("%s %s", resp.Status, b)
}

// runService starts a command that runs until the test ends, when it must stop in order.
func runService(t *testing.T, env []string, args ...string) {
	t.Helper()
	cmd := exec.Command("watershed", args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := cmd.Process.Signal(syscall.SIGTERM)
		if waitErr := cmd.Wait(); err != nil || waitErr != nil {
			t.Errorf("watershed %q: %v, %v\n%s", args, err, waitErr, output.Bytes())
		}
	})
}

func eventually(t *testing.T, what string, try func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, last := try()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("waited %s for %s; last: %s", patience, what, last)
		case <-tick.C:
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
