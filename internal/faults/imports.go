package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// importSome imports one file of each type: a mark and a few events, which come again later.
func (l *life) importSome(ctx context.Context) error {
	for _, eventType := range []string{"sale", "visit"} {
		path, done, err := l.writeImport(eventType)
		if err != nil {
			return err
		}
		if out, err := l.persist(ctx, "import", eventType, path); err != nil {
			return fmt.Errorf("import %s: %w: %s", path, err, out)
		}
		done()
	}
	return nil
}

// writeImport writes a file to import, and returns what to call when that has been done.
func (l *life) writeImport(eventType string) (path string, done func(), err error) {
	l.imports++
	g := l.importGen[eventType]
	events := []*event{g.draw("import", markKind)}
	for range 3 {
		events = append(events, g.draw("import", "import"))
	}
	if done, err = l.ledger.importing(eventType, events); err != nil {
		return "", nil, err
	}
	path = l.path(fmt.Sprintf("import-%s-%d.ndjson", eventType, l.imports))
	var text []byte
	for _, e := range events {
		text = append(text, e.line()...)
	}
	return path, done, os.WriteFile(path, text, 0o644)
}

// importAgain imports the file that has a SHA-256.
func (l *life) importAgain(ctx context.Context, sha string) error {
	files, err := filepath.Glob(l.path("import-*.ndjson"))
	if err != nil {
		return err
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if fmt.Sprintf("%x", sha256.Sum256(text)) != sha {
			continue
		}
		if out, err := l.persist(ctx, "import", strings.Split(filepath.Base(path), "-")[1], path); err != nil {
			return fmt.Errorf("import %s again: %w: %s", path, err, out)
		}
		return nil
	}
	return fmt.Errorf("no import has the SHA-256 %s", sha)
}

// knownEvents writes a file of events that were published before.
func (l *life) knownEvents() (path string, err error) {
	path = l.path("again.ndjson")
	var text []byte
	l.ledger.mu.Lock()
	for _, m := range l.ledger.acked {
		for _, e := range m.Events {
			if e.Type == "sale" && len(text) < 8<<10 {
				text = append(text, e.line()...)
			}
		}
	}
	l.ledger.mu.Unlock()
	return path, os.WriteFile(path, text, 0o644)
}
