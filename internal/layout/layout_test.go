// Package layout keeps the arrows between packages pointing one way.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed is the import table of docs/ARCHITECTURE.md: for each package, which others of ours
// its code (not its tests) may import.
var allowed = map[string][]string{
	"schemas":                    {},
	"schemas/column":             {"schemas"},
	"schemas/identity":           {"schemas", "schemas/column"},
	"schemas/expr":               {"schemas", "schemas/column"},
	"schemas/agg":                {"schemas", "schemas/column"},
	"schemas/view":               {"schemas", "schemas/agg", "schemas/column", "schemas/expr"},
	"internal/durable":           {},
	"internal/decode":            {"schemas"},
	"internal/eventlog":          {"schemas", "internal/decode"},
	"internal/devserver":         {"internal/durable"},
	"internal/devserver/devtest": {"internal/devserver"},
	"batch/history":              {"schemas", "internal/decode", "internal/durable"},
	"batch":                      {"schemas", "schemas/column", "schemas/identity", "schemas/view", "batch/history"},
	"speed":                      {"schemas", "schemas/column", "schemas/identity", "schemas/view"},
	"serving/store":              {"schemas", "schemas/agg", "schemas/view"},
	"serving/api":                {"schemas", "schemas/view"},
}

// only names the libraries that one package alone may import.
var only = map[string]string{
	"github.com/nats-io/nats.go":          "internal/eventlog",
	"github.com/nats-io/nats-server":      "internal/devserver",
	"github.com/parquet-go/parquet-go":    "batch/history",
	"github.com/ClickHouse/clickhouse-go": "serving/store",
	"cel.dev/cel-go":                      "schemas/expr",
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "watershed/...")
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

// TestImports holds every package against the import table.
func TestImports(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "watershed/")
		seen[name] = true
		if strings.HasPrefix(name, "cmd/") {
			continue // wires everything
		}
		may, listed := allowed[name]
		if !listed && len(p.Imports) > 0 {
			t.Errorf("package %s is not in the import table", name)
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, "watershed/"); ok && !slices.Contains(may, ours) {
				t.Errorf("package %s imports %s, which the import table does not allow", name, ours)
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("the import table names %s, which is not there", name)
		}
	}
}

// TestLibraries holds the libraries that stand for an engine to one package each.
func TestLibraries(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "watershed/")
		for _, imp := range p.Imports {
			for lib, owner := range only {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && name != owner {
					t.Errorf("package %s imports %s; only %s may", name, imp, owner)
				}
			}
		}
	}
}
