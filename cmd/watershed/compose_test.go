package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"
)

// repository is the root of the source tree, seen from here.
const repository = "../.."

// A composeFile is what the tests look at of docker-compose.yml.
type composeFile struct {
	Services map[string]composeService `yaml:"services"`
	Configs  map[string]struct {
		Content string `yaml:"content"`
	} `yaml:"configs"`
	Volumes map[string]any `yaml:"volumes"`
}

type composeService struct {
	Image       string            `yaml:"image"`
	Build       map[string]string `yaml:"build"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	Restart     string            `yaml:"restart"`
	Profiles    []string          `yaml:"profiles"`
	Configs     []struct {
		Source string `yaml:"source"`
		Target string `yaml:"target"`
	} `yaml:"configs"`
	HealthCheck struct {
		Test     []string `yaml:"test"`
		Interval string   `yaml:"interval"`
		Retries  int      `yaml:"retries"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	text := readRepository(t, "docker-compose.yml")
	var c composeFile
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return c
}

func readRepository(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ours are the services that run this program.
var ours = []string{"batch", "endpoint", "worker"}

func TestComposeServices(t *testing.T) {
	c := readCompose(t)
	if got, want := sortedKeys(c.Services), []string{"batch", "clickhouse", "endpoint", "nats", "worker"}; !slices.Equal(got, want) {
		t.Fatalf("services are %v; want %v", got, want)
	}
	pinned := regexp.MustCompile(`^[a-z/-]+:[0-9]+\.[0-9]+\.[0-9]+(-[a-z]+)?$`)
	for name, s := range c.Services {
		mine := slices.Contains(ours, name)
		switch {
		case mine && s.Build["dockerfile"] == "":
			t.Errorf("%s: is not built from our Dockerfile", name)
		case mine:
			mustExist(t, s.Build["dockerfile"])
		case !pinned.MatchString(s.Image):
			t.Errorf("%s: image %q is not pinned to one version", name, s.Image)
		}
		if once := s.Restart == "no"; once != (name == "batch") {
			t.Errorf("%s: restart is %q", name, s.Restart)
		} else if !once && (len(s.HealthCheck.Test) < 2 || s.HealthCheck.Test[0] != "CMD" || s.HealthCheck.Retries == 0) {
			t.Errorf("%s: has no health check", name)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open beyond loopback", name, p)
			}
		}
		// An admin port is there for the health check and for Prometheus, never published.
		if admin, has := s.Environment["WATERSHED_ADMIN"]; mine && has != (name != "batch") {
			t.Errorf("%s: the admin port is %q", name, admin)
		} else if has {
			_, port, err := net.SplitHostPort(admin)
			if err != nil || slices.ContainsFunc(s.Ports, func(p string) bool { return strings.HasSuffix(p, ":"+port) }) {
				t.Errorf("%s: the admin port %s is published, or no address (%v)", name, admin, err)
			}
			if !slices.Equal(s.HealthCheck.Test, []string{"CMD", "/usr/local/bin/watershed", "health"}) || s.Environment["WATERSHED_TOKEN"] == "" {
				t.Errorf("%s: the health check is %q, and the token %q", name, s.HealthCheck.Test, s.Environment["WATERSHED_TOKEN"])
			}
		}
		for dep, on := range s.DependsOn {
			if on.Condition != "service_healthy" || len(c.Services[dep].HealthCheck.Test) == 0 {
				t.Errorf("%s: waits for %s by %q, which has %d words of health check", name, dep, on.Condition, len(c.Services[dep].HealthCheck.Test))
			}
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if _, ok := c.Volumes[source]; !ok {
				t.Errorf("%s: volume %s is not declared", name, source)
			}
		}
		for _, use := range s.Configs {
			if c.Configs[use.Source].Content == "" {
				t.Errorf("%s: config %s is not there", name, use.Source)
			}
		}
	}
	for _, name := range []string{"nats", "clickhouse"} {
		for _, user := range ours {
			if _, ok := c.Services[user].DependsOn[name]; !ok {
				t.Errorf("%s does not wait for %s", user, name)
			}
		}
	}
}

// TestComposeVersions: what is deployed is what the tests ran on.
func TestComposeVersions(t *testing.T) {
	c := readCompose(t)
	goMod := string(readRepository(t, "go.mod"))
	want := regexp.MustCompile(`nats-server/v2 v([0-9.]+)`).FindStringSubmatch(goMod)
	if _, tag, _ := strings.Cut(c.Services["nats"].Image, ":"); want == nil || !strings.HasPrefix(tag, want[1]+"-") {
		t.Errorf("NATS is %q; the tests run %q", tag, want)
	}
	// The image's compiler is as new as go.mod asks for.
	needs := regexp.MustCompile(`(?m)^go ([0-9]+\.[0-9]+)`).FindStringSubmatch(goMod)
	from := regexp.MustCompile(`(?m)^FROM golang:([0-9]+\.[0-9]+)\.[0-9]+-`).FindSubmatch(readRepository(t, "Dockerfile"))
	if needs == nil || from == nil || needs[1] != string(from[1]) {
		t.Errorf("the image is built with Go %q; go.mod says %q", from, needs)
	}
}

// TestComposeCommands: every command line exists in the program, and every variable is a
// setting of it.
func TestComposeCommands(t *testing.T) {
	c := readCompose(t)
	known := (&config{}).known()
	for _, name := range ours {
		s := c.Services[name]
		checkCommand(t, name, s.Command)
		if test := s.HealthCheck.Test; len(test) > 2 {
			if test[1] != "/usr/local/bin/watershed" {
				t.Errorf("%s: the health check runs %s", name, test[1])
			}
			checkCommand(t, name, test[2:])
		}
		for variable, value := range s.Environment {
			key := strings.ToLower(strings.TrimPrefix(variable, "WATERSHED_"))
			if !strings.HasPrefix(variable, "WATERSHED_") || !known[key] {
				t.Errorf("%s: nothing reads %s", name, variable)
			}
			if secret := strings.Contains(key, "password") || strings.HasSuffix(key, "token") || strings.HasSuffix(key, "tokens"); secret && !strings.HasPrefix(value, "${") {
				t.Errorf("%s: %s is written into the file", name, variable)
			}
		}
		if !slices.Contains(s.Volumes, "history:/data") || !strings.HasPrefix(s.Environment["WATERSHED_HISTORY"], "/data/") {
			t.Errorf("%s: history %s is not on its volume", name, s.Environment["WATERSHED_HISTORY"])
		}
	}
}

// checkCommand holds a command line against the program's own commands and flags.
func checkCommand(t *testing.T, where string, args []string) {
	t.Helper()
	root := (&app{stdout: io.Discard, stderr: io.Discard}).root()
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root {
		t.Errorf("%s: there is no command %q (%v)", where, args, err)
		return
	}
	if err := errors.Join(cmd.ParseFlags(rest), cmd.ValidateArgs(cmd.Flags().Args())); err != nil {
		t.Errorf("%s: %q: %v", where, args, err)
	}
}

// TestDockerfile: everything that it copies is there, and the command that it runs.
func TestDockerfile(t *testing.T) {
	text := string(readRepository(t, "Dockerfile"))
	copies := regexp.MustCompile(`(?m)^COPY (?:--from=build )?(.+) \S+$`).FindAllStringSubmatch(text, -1)
	if len(copies) == 0 {
		t.Fatal("nothing is copied")
	}
	for _, m := range copies {
		for _, source := range strings.Fields(m[1]) {
			if source == "/out/watershed" && strings.Contains(text, "-o /out/watershed ./cmd/watershed") {
				continue // what the first stage built
			}
			mustExist(t, strings.TrimPrefix(source, "/src/"))
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "FROM ") && !regexp.MustCompile(`^FROM [a-z]+:[0-9]+\.[0-9]+(\.[0-9]+)?-[a-z]+`).MatchString(line) {
			t.Errorf("%q is not pinned", line)
		}
	}
	for _, want := range []string{"\nUSER watershed\n", `ENTRYPOINT ["/usr/local/bin/watershed"]`, "COPY --from=build /src/schemas/examples/flights /definitions"} {
		if !strings.Contains(text, want) {
			t.Errorf("the Dockerfile has no %q", want)
		}
	}
	// What git ignores, the image does not get either.
	ignored := strings.Fields(string(readRepository(t, ".dockerignore")))
	for _, name := range []string{".git", "bin", "**/node_modules"} {
		if !slices.Contains(ignored, name) {
			t.Errorf(".dockerignore does not name %s", name)
		}
	}
}

func mustExist(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(repository, name)); err != nil {
		t.Error(err)
	}
}

// content is a config as the container gets it: $$ is one dollar, and there is no other.
func (c composeFile) content(t *testing.T, name string) string {
	t.Helper()
	text := c.Configs[name].Content
	if strings.Contains(strings.ReplaceAll(text, "$$", ""), "$") {
		t.Errorf("config %s: a lone $ is taken by docker compose", name)
	}
	return strings.ReplaceAll(text, "$$", "$")
}

// natsOptions are the options that NATS itself reads from the config.
func natsOptions(t *testing.T, c composeFile) *server.Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(c.content(t, "nats")), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("NATS refuses its config: %v", err)
	}
	return o
}

func TestComposeNATS(t *testing.T) {
	t.Setenv("NATS_PASSWORD", "a-password")
	c := readCompose(t)
	o := natsOptions(t, c)
	if !o.SyncAlways {
		t.Error("sync_interval is not always: an acknowledged message may not be on disk")
	}
	if o.JetStreamMaxStore <= 0 || o.JetStreamMaxMemory <= 0 || o.MaxPayload <= 0 || !o.JetStream {
		t.Errorf("limits: %d bytes of file, %d of memory, payload %d; want all explicit", o.JetStreamMaxStore, o.JetStreamMaxMemory, o.MaxPayload)
	}
	if o.Password != "a-password" {
		t.Errorf("password is %q; want the environment's", o.Password)
	}
	if o.HTTPHost != "127.0.0.1" {
		t.Errorf("monitoring listens on %q", o.HTTPHost)
	}
	if store := strings.Split(c.Services["nats"].Volumes[0], ":")[1]; o.StoreDir != store {
		t.Errorf("the log is in %s, the volume at %s", o.StoreDir, store)
	}
	var room int64
	if _, err := fmt.Sscan(c.Services["worker"].Environment["WATERSHED_LOG_MAX_BYTES"], &room); err != nil {
		t.Fatal(err)
	}
	if need := room + room/8 + 1<<30; need > o.JetStreamMaxStore { // the log, its dead letters, counters
		t.Errorf("max_file_store is %d; log and dead letters may take %d", o.JetStreamMaxStore, need)
	}
}

func TestComposeClickHouseXML(t *testing.T) {
	c := readCompose(t)
	for _, name := range []string{"clickhouse_server", "clickhouse_users"} {
		dec := xml.NewDecoder(strings.NewReader(c.content(t, name)))
		for {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("config %s: %v", name, err)
				break
			}
		}
	}
	for _, use := range c.Services["clickhouse"].Configs {
		if dir := path.Base(path.Dir(use.Target)); dir != "config.d" && dir != "users.d" {
			t.Errorf("config %s goes to %s, where ClickHouse does not look", use.Source, use.Target)
		}
	}
	for variable := range c.Services["clickhouse"].Environment {
		if strings.HasSuffix(variable, "_PASSWORD") && !strings.Contains(c.content(t, "clickhouse_users"), `from_env="`+variable+`"`) {
			t.Errorf("no user takes the password %s", variable)
		}
	}
}
