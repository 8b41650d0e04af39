// Package layout keeps the arrows between packages pointing one way.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// imports is the import table of docs/ARCHITECTURE.md: for each package with code outside of
// tests, which others of ours that code imports. Arrows go from cmd to the layers, and from
// those to schemas and internal; the three layers do not know each other.
var imports = map[string][]string{
	"batch":                      {"batch/history", "internal/crash", "internal/traces", "schemas", "schemas/column", "schemas/identity", "schemas/view"},
	"batch/history":              {"internal/crash", "internal/decode", "internal/durable", "schemas", "schemas/column", "schemas/identity"},
	"internal/bounded":           {},
	"internal/crash":             {},
	"internal/decode":            {"schemas"},
	"internal/devserver":         {"internal/durable"},
	"internal/devserver/devtest": {"internal/devserver"},
	"internal/durable":           {"internal/crash"},
	"internal/eventlog":          {"internal/crash", "internal/decode", "internal/traces", "schemas"},
	"internal/faultproxy":        {},
	"internal/faults":            {"internal/crash", "internal/devserver", "internal/eventlog", "internal/faultproxy"},
	"internal/ingest":            {"internal/decode", "internal/eventlog", "internal/traces", "schemas"},
	"internal/traces":            {},
	"internal/traces/export":     {"internal/traces"},
	"internal/year":              {"batch", "batch/history", "internal/devserver", "internal/eventlog", "schemas", "schemas/view", "serving/store", "speed"},
	"schemas":                    {},
	"schemas/agg":                {"schemas", "schemas/column"},
	"schemas/agg/aggtest":        {"internal/devserver", "schemas"},
	"schemas/column":             {"schemas"},
	"schemas/expr":               {"schemas", "schemas/column"},
	"schemas/identity":           {"schemas", "schemas/column"},
	"schemas/view":               {"schemas", "schemas/agg", "schemas/column", "schemas/expr"},
	"serving/api":                {"internal/ingest", "internal/traces", "schemas"},
	"serving/store":              {"internal/crash", "internal/traces", "schemas", "schemas/agg", "schemas/view"},
	"speed":                      {"internal/crash", "internal/traces", "schemas", "schemas/column", "schemas/identity", "schemas/view"},
}

// only names the libraries that one package alone may import. (Benchmarks measure some beside ours.)
var only = map[string]string{
	"github.com/nats-io/nats.go":          "internal/eventlog",
	"github.com/nats-io/nats-server":      "internal/devserver",
	"github.com/parquet-go/parquet-go":    "batch/history",
	"github.com/ClickHouse/ch-go":         "serving/store",
	"github.com/ClickHouse/clickhouse-go": "serving/store",
	"cel.dev/cel-go":                      "schemas/expr",
	"go.opentelemetry.io/otel/sdk":        "internal/traces/export",
	"go.opentelemetry.io/otel/exporters":  "internal/traces/export",
}

type pkg struct {
	ImportPath string
	GoFiles    []string // without tests
	Imports    []string // of GoFiles
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,GoFiles,Imports", "watershed/...")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var msg strings.Builder
	cmd.Stderr = &msg
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v\n%s", err, msg.String())
	}
	return list
}

// TestImports holds every package against the import table, both ways.
func TestImports(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "watershed/")
		if strings.HasPrefix(name, "cmd/") || len(p.GoFiles) == 0 {
			continue // wires everything, or is tests alone
		}
		seen[name] = true
		want, listed := imports[name]
		if !listed {
			t.Errorf("package %s is not in the import table", name)
			continue
		}
		got := []string{}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, "watershed/"); ok {
				got = append(got, ours)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("package %s imports %q; the import table says %q", name, got, want)
		}
	}
	for name := range imports {
		if !seen[name] {
			t.Errorf("the import table names %s, which is not there", name)
		}
	}
}

// TestDocumentedImports holds the table in docs/ARCHITECTURE.md against the one above: rows of
// a package, its purpose, and the packages that it imports.
func TestDocumentedImports(t *testing.T) {
	text, err := os.ReadFile("../../docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string][]string)
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name := quoted.FindStringSubmatch(cells[1])[1]
		documented[name] = []string{}
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			documented[name] = append(documented[name], m[1])
		}
	}
	for name, want := range imports {
		if got, ok := documented[name]; !ok || !slices.Equal(got, want) {
			t.Errorf("package %s: docs/ARCHITECTURE.md says %q; want %q", name, got, want)
		}
	}
	for name := range documented {
		if _, ok := imports[name]; !ok && !strings.HasPrefix(name, "cmd/") {
			t.Errorf("docs/ARCHITECTURE.md has a row for %s, which is not in the table", name)
		}
	}
}

// TestLibraries holds the libraries that stand for an engine to one package each.
func TestLibraries(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "watershed/")
		for _, imp := range p.Imports {
			for lib, owner := range only {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && name != owner && name != "cmd/bench" {
					t.Errorf("package %s imports %s; only %s may", name, imp, owner)
				}
			}
		}
	}
}
