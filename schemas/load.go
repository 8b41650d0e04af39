package schemas

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxFile bounds one definition file: more is not a definition file.
const maxFile = 1 << 20

// Load reads all *.yaml and *.yml files at any depth, in the order of their names. A file
// holds one or more documents, each an event or a view. The error is an Errors with every
// mistake that was found; the set then has what is sound enough to look for further mistakes
// in, and is good for nothing else. The expressions of views are not looked into: see
// schemas/view.
func Load(fsys fs.FS) (*Set, error) { return load(fsys, "") }

// LoadDir is Load of a directory; positions name files as the directory was given.
func LoadDir(dir string) (*Set, error) { return load(os.DirFS(dir), dir) }

func load(fsys fs.FS, dir string) (*Set, error) {
	l := &loader{lines: make(map[string][]string), from: make(map[*View]Pos)}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".yaml" && path.Ext(name) != ".yml" {
			return err
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if dir != "" {
			name = filepath.Join(dir, filepath.FromSlash(name))
		}
		l.file(name, src)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read definitions: %w", err)
	}
	l.checkSet()
	l.set.sort()
	if len(l.errs) > 0 {
		return l.set.sound(), l.errs.Sorted()
	}
	return &l.set, nil
}

// Sorted returns the mistakes in the order of their places, each once.
func (e Errors) Sorted() Errors {
	e = slices.Clone(e)
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return slices.CompactFunc(e, func(a, b *Error) bool { return a.Pos == b.Pos && a.Msg == b.Msg })
}

// sound leaves out events whose fields are not all known, the views of events that are not
// there, and those without measures: mistakes found in those would follow from others.
func (s *Set) sound() *Set {
	out := &Set{}
	for _, e := range s.Events {
		if out.Event(e.Name) == nil && !slices.ContainsFunc(e.Fields, func(f Field) bool { return f.Type.Kind == 0 }) {
			out.Events = append(out.Events, e)
		}
	}
	for _, v := range s.Views {
		if out.Event(v.From) != nil && len(v.Measures) > 0 {
			out.Views = append(out.Views, v)
		}
	}
	return out
}

// A loader collects definitions and mistakes over all files.
type loader struct {
	set   Set
	errs  Errors
	lines map[string][]string // of each file, for the errors
	from  map[*View]Pos       // where each view names its event
}

func (l *loader) remember(name string, src []byte) {
	for _, line := range bytes.Split(src, []byte("\n")) {
		l.lines[name] = append(l.lines[name], strings.TrimSuffix(string(line), "\r"))
	}
}

// fail notes a mistake.
func (l *loader) fail(p Pos, hint, format string, args ...any) {
	e := &Error{Pos: p, Msg: fmt.Sprintf(format, args...), Hint: hint}
	if lines := l.lines[p.File]; p.Line >= 1 && p.Line <= len(lines) {
		e.Line = lines[p.Line-1]
	}
	l.errs = append(l.errs, e)
}

var nameText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,62}$`)

// name checks the name of anything.
func (l *loader) name(p Pos, what, name string) {
	switch {
	case !nameText.MatchString(name):
		l.fail(p, "a name begins with a letter, has letters, digits and _ only, and at most 63 of them", "bad name %q of %s", name, what)
	case strings.Contains(name, "__"):
		l.fail(p, "two underscores in a row keep apart what Watershed itself appends to names; use one", "bad name %q of %s", name, what)
	}
}

// A namespace holds names that must differ by more than case.
type namespace map[string]Pos

func (l *loader) unique(ns namespace, p Pos, what, name string) {
	key := strings.ToLower(name)
	if first, ok := ns[key]; ok {
		l.fail(p, fmt.Sprintf("names differ by more than case; the first is at %s:%d:%d", first.File, first.Line, first.Col), "%s %s is declared twice", what, name)
		return
	}
	ns[key] = p
}

// checkSet checks what one file alone cannot show.
func (l *loader) checkSet() {
	events, views := namespace{}, namespace{}
	var names []string
	for _, e := range l.set.Events {
		l.unique(events, e.Pos, "event", e.Name)
		names = append(names, e.Name)
	}
	for _, v := range l.set.Views {
		l.unique(views, v.Pos, "view", v.Name)
		if v.From != "" && l.set.Event(v.From) == nil {
			l.fail(l.from[v], suggest(v.From, names, "the events are "), "view %s is from event %s, which is not declared", v.Name, v.From)
		}
	}
}

// suggest is the hint for a word that is none of the known ones.
func suggest(word string, known []string, list string) string {
	if near := Nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	if len(known) == 0 {
		return ""
	}
	return list + strings.Join(known, ", ")
}

func (s *Set) sort() {
	slices.SortFunc(s.Events, func(a, b *Event) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Views, func(a, b *View) int { return cmp.Compare(a.Name, b.Name) })
}
