package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"watershed/schemas"
	"watershed/schemas/view"
)

// blocks are the fenced blocks of a language in a document; "": of none.
func blocks(text, language string) []string {
	var out []string
	var block strings.Builder
	inside, wanted := false, false
	for line := range strings.Lines(text) {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && inside:
			if wanted {
				out = append(out, block.String())
			}
			inside = false
			block.Reset()
		case isFence:
			inside, wanted = true, fence == language
		case inside:
			block.WriteString(line)
		}
	}
	return out
}

// TestDocumentedCommands: every command line of the README and the runbook exists in the program,
// and so do every variable, target, link and script.
func TestDocumentedCommands(t *testing.T) {
	for _, name := range []string{"README.md", "docs/RUNBOOK.md"} {
		checkDocument(t, name)
	}
	runbook := string(readRepository(t, "docs/RUNBOOK.md"))
	drills := regexp.MustCompile("(?m)^## .* — `([a-z_]+)`$").FindAllStringSubmatch(runbook, -1)
	for _, d := range drills {
		mustExist(t, "cmd/watershed/testdata/script/"+d[1]+".txtar")
	}
	if len(drills) < 6 {
		t.Errorf("the runbook has %d drills that name their script", len(drills))
	}
	metrics := documentedMetrics(runbook)
	for _, name := range metricNames(runbook) {
		if _, ok := metrics[name]; !ok {
			t.Errorf("the runbook names %s, which is not in its table of metrics", name)
		}
	}
}

func checkDocument(t *testing.T, name string) {
	t.Helper()
	text := string(readRepository(t, name))
	word := regexp.MustCompile(`'[^']*'|\S+`)
	checked := 0
	for _, block := range blocks(text, "") {
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, " #")
			var args []string
			for _, w := range word.FindAllString(strings.TrimSuffix(strings.TrimSpace(line), "&"), -1) {
				args = append(args, strings.Trim(w, "'"))
			}
			for len(args) > 0 && strings.HasPrefix(args[0], "WATERSHED_") {
				args = args[1:]
			}
			if len(args) > 0 && args[0] == "watershed" {
				checkCommand(t, name, args[1:])
				checked++
			}
		}
	}
	if checked < 10 {
		t.Errorf("%s: %d command lines found; it has more, so this test does not see them", name, checked)
	}
	known := (&config{}).known()
	for _, variable := range regexp.MustCompile(`\bWATERSHED_[A-Z_]+`).FindAllString(text, -1) {
		if !known[strings.ToLower(strings.TrimPrefix(variable, "WATERSHED_"))] && variable != "WATERSHED_DLQ" {
			t.Errorf("%s: nothing reads %s", name, variable)
		}
	}
	for _, target := range regexp.MustCompile("`make ([a-z]+)").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(string(readRepository(t, "Makefile")), "\n"+target[1]+":") {
			t.Errorf("%s: there is no target %s", name, target[1])
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^):#]+)[)#]`).FindAllStringSubmatch(text, -1) {
		mustExist(t, link[1])
	}
}

// TestReadmeDefinitions: the definitions of the README compile.
func TestReadmeDefinitions(t *testing.T) {
	files := fstest.MapFS{}
	for i, block := range blocks(string(readRepository(t, "README.md")), "yaml") {
		files[fmt.Sprintf("%d.yaml", i)] = &fstest.MapFile{Data: []byte(block)}
	}
	set, err := schemas.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	if plans, err := view.CompileSet(set); err != nil || len(plans) == 0 {
		t.Errorf("%d views, %v; want some, and no error", len(plans), err)
	}
}
