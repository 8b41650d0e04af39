package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// errNotHealed ends a life: what was destroyed stays so.
var errNotHealed = errors.New("not healed")

// healing finds a command in a message, importNamed the file of an import that must be made again.
var (
	healing     = regexp.MustCompile("watershed (repair[a-z -]*)")
	importNamed = regexp.MustCompile("SHA-256 (?:is )?([0-9a-f]{64})")
)

// named waits for a message that names a command that heals.
func (l *life) named(ctx context.Context, said func() string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if m := healing.FindAllStringSubmatch(said(), -1); m != nil {
			return strings.TrimSpace(m[len(m)-1][1]), nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return "", fmt.Errorf("%w: no message names a command that heals; it said: %s", errNotHealed, lastLines(said(), 3))
		}
	}
}

// heal runs the command that a message named, once. A command that does not heal leaves the life as it is.
func (l *life) heal(ctx context.Context, command string) error {
	out, err := l.healer(ctx, strings.Fields(command)...)
	if err != nil {
		return fmt.Errorf("%w: `watershed %s`: %w: %s", errNotHealed, command, err, lastLines(out, 3))
	}
	l.tally.say("  `watershed %s`: %s", command, firstLine(out))
	return nil
}

// flipBit changes one bit of a file.
func (l *life) flipBit(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[l.r.IntN(len(b))] ^= 1 << l.r.IntN(8)
	return os.WriteFile(path, b, 0o644)
}

func (l *life) bitFlipped(ctx context.Context) error {
	return l.breakHistory(ctx, l.r.IntN(2) == 0, l.flipBit)
}

func (l *life) fileMissing(ctx context.Context) error {
	return l.breakHistory(ctx, l.r.IntN(2) == 0, os.Remove)
}

// breakHistory does something to a data file, of an import or of the log. `verify` must find it and name
// what heals, and that must heal, or say what else does: that the import is made again, or, if the log
// has forgotten the events, that the file comes back from a backup. A batch in between may fail, but must
// not compute from what is not there.
func (l *life) breakHistory(ctx context.Context, imported bool, how func(path string) error) error {
	path, backup, err := l.damage(imported, how)
	if err != nil {
		return err
	}
	l.batch.hurry()
	heal, err := l.found(ctx, path)
	if err != nil {
		return err
	}
	switch {
	case heal == "": // nothing to do any more
	case imported:
		if err = l.giveUpAndImport(ctx, heal, path); err == nil {
			err = l.batch.complete(ctx) // the live build rested on the files that were given up
		}
	case l.whole:
		err = l.heal(ctx, heal)
	default:
		err = l.healOrTakeBack(ctx, heal, path, backup)
	}
	if err != nil {
		return err
	}
	return l.verified(ctx, heal)
}

// damage does something to a data file, and returns what was in it. No batch may compact it meanwhile.
func (l *life) damage(imported bool, how func(path string) error) (path string, before []byte, err error) {
	l.batch.gate.Lock()
	defer l.batch.gate.Unlock()
	if path, err = l.dataFile(imported); err != nil {
		return "", nil, err
	}
	if before, err = os.ReadFile(path); err != nil {
		return "", nil, err
	}
	return path, before, how(path)
}

// found returns the command that `verify` names when it has found what is wrong with a file; none if a compaction
// has replaced the file.
func (l *life) found(ctx context.Context, path string) (heal string, err error) {
	out, err := l.command(ctx, "", "verify")
	if err == nil {
		if replaced, err := l.replaced(path); replaced || err != nil {
			return "", err
		}
		l.tally.violate(lost, fmt.Sprintf("%s was damaged and `watershed verify` did not find it: %s", path, out))
		return "", errNotHealed
	}
	if !strings.Contains(out, strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))) {
		return "", fmt.Errorf("%w: `watershed verify` does not name %s: %s", errNotHealed, path, lastLines(out, 3))
	}
	return l.named(ctx, func() string { return out })
}

// verified reports it if `verify` still finds something wrong.
func (l *life) verified(ctx context.Context, heal string) error {
	if out, err := l.command(ctx, "", "verify"); err != nil {
		return fmt.Errorf("%w: `watershed verify` after `watershed %s`: %w: %s", errNotHealed, heal, err, out)
	}
	return nil
}

// giveUpAndImport gives up the files of an import and makes the import again. No batch may run in
// between: its build would rightly lack the import.
func (l *life) giveUpAndImport(ctx context.Context, heal, path string) error {
	out, err := l.healer(ctx, strings.Fields(heal)...)
	if err == nil {
		if replaced, err := l.replaced(path); replaced || err != nil {
			return err
		}
	}
	if err == nil || !strings.Contains(out, "accept") {
		return fmt.Errorf("%w: `watershed %s` does not say how to give up a damaged import (%v): %s", errNotHealed, heal, err, lastLines(out, 3))
	}
	l.batch.gate.Lock()
	defer l.batch.gate.Unlock()
	given, _ := l.healer(ctx, "repair", "--accept-loss") // exit code 3: something was lost
	out += given
	var imports []string // a compaction may have brought several into one file
	for _, named := range importNamed.FindAllStringSubmatch(out, -1) {
		if !slices.Contains(imports, named[1]) {
			imports = append(imports, named[1])
		}
	}
	if len(imports) == 0 {
		if replaced, err := l.replaced(path); replaced || err != nil {
			return err
		}
		return fmt.Errorf("%w: `watershed repair --accept-loss` does not name the import to be made again: %s", errNotHealed, lastLines(out, 3))
	}
	l.tally.say("  `watershed repair --accept-loss`, then %d imports again", len(imports))
	for _, sha := range imports {
		if err := l.importAgain(ctx, sha); err != nil {
			return err
		}
	}
	return nil
}

// replaced reports whether a compaction has replaced a damaged file. That heals it rightly, if it could read it: pages
// have checksums, and what lies between them (a page index, say) it does not read.
func (l *life) replaced(path string) (bool, error) {
	log, err := l.dataFiles(false)
	imports, err2 := l.dataFiles(true)
	if err := errors.Join(err, err2); err != nil || slices.Contains(log, path) || slices.Contains(imports, path) {
		return false, err
	}
	l.tally.say("  a compaction has replaced the file meanwhile")
	return true, nil
}

// healOrTakeBack heals, or takes the file back from a backup if the log is said to have forgotten its events.
func (l *life) healOrTakeBack(ctx context.Context, heal, path string, backup []byte) error {
	out, err := l.healer(ctx, strings.Fields(heal)...)
	if err == nil {
		l.tally.say("  `watershed %s`: %s", heal, firstLine(out))
		return nil
	}
	if !strings.Contains(out, "backup") {
		return fmt.Errorf("%w: `watershed %s`: %w, and it does not say what else heals: %s", errNotHealed, heal, err, lastLines(out, 3))
	}
	l.tally.say("  `watershed %s` says that the log has forgotten it: back from a backup", heal)
	return os.WriteFile(path, backup, 0o644)
}

// dataFile draws a data file of an import or of the log.
func (l *life) dataFile(imported bool) (string, error) {
	files, err := l.dataFiles(imported)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", errors.New("history has no data files")
	}
	return files[l.r.IntN(len(files))], nil
}

// dataFiles are the live data files of imports or of the log.
func (l *life) dataFiles(imported bool) (files []string, err error) {
	commits, err := filepath.Glob(l.path("history", "*", "_delta_log", "*.json"))
	if err != nil {
		return nil, err
	}
	for _, commit := range commits {
		text, err := os.ReadFile(commit)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			var a struct {
				Add, Remove *struct {
					Path string            `json:"path"`
					Tags map[string]string `json:"tags"`
				}
			}
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				return nil, fmt.Errorf("%s: %w", commit, err)
			}
			table := filepath.Dir(filepath.Dir(commit))
			if a.Add != nil && (a.Add.Tags["import"] == "true") == imported {
				files = append(files, filepath.Join(table, a.Add.Path))
			}
			if a.Remove != nil {
				files = slices.DeleteFunc(files, func(f string) bool { return f == filepath.Join(table, a.Remove.Path) })
			}
		}
	}
	return files, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
