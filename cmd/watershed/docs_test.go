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

// TestReadmeCommands: every command line of the README exists in the program, and so does
// every variable.
func TestReadmeCommands(t *testing.T) {
	text := string(readRepository(t, "README.md"))
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
				checkCommand(t, "README.md", args[1:])
				checked++
			}
		}
	}
	if checked < 10 {
		t.Errorf("%d command lines found; the README has more, so this test does not see them", checked)
	}
	known := (&config{}).known()
	for _, name := range regexp.MustCompile(`WATERSHED_[A-Z_]+`).FindAllString(text, -1) {
		if !known[strings.ToLower(strings.TrimPrefix(name, "WATERSHED_"))] {
			t.Errorf("README.md: nothing reads %s", name)
		}
	}
	for _, target := range regexp.MustCompile("`make ([a-z]+)").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(string(readRepository(t, "Makefile")), "\n"+target[1]+":") {
			t.Errorf("README.md: there is no target %s", target[1])
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
