package schemas

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth bounds how deeply flow collections may nest: the YAML parser recurses.
const maxDepth = 64

func (l *loader) file(name string, src []byte) {
	l.remember(name, src)
	if len(src) > maxFile {
		l.fail(Pos{File: name}, "", "the file is too large: %d bytes; at most %d", len(src), maxFile)
		return
	}
	if strings.Count(string(src), "[")+strings.Count(string(src), "{") > maxDepth*maxDepth {
		l.fail(Pos{File: name}, "", "the file has too many brackets to be definitions")
		return
	}
	f, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax *yaml.SyntaxError
		pos, msg := Pos{File: name}, err.Error()
		if errors.As(err, &syntax) {
			msg = syntax.Message
			if t := syntax.Token; t != nil && t.Position != nil {
				pos.Line, pos.Col = t.Position.Line, t.Position.Column
			}
		}
		l.fail(pos, "", "not YAML: %s", msg)
		return
	}
	empty := true
	for _, doc := range f.Docs {
		if doc == nil || doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		empty = false
		d := &document{loader: l, file: name}
		d.read(doc.Body)
	}
	if empty {
		l.fail(Pos{File: name, Line: 1, Col: 1}, "begin it with `event: name` or `view: name`", "the file holds neither an event nor a view")
	}
}

// A document reads one YAML document.
type document struct {
	*loader
	file string
}

// An entry is one key of a mapping.
type entry struct {
	key   string
	pos   Pos
	value ast.Node
}

func (d *document) pos(n ast.Node) Pos { return d.tokenPos(n.GetToken()) }

func (d *document) tokenPos(t *token.Token) Pos {
	if t == nil || t.Position == nil {
		return Pos{File: d.file}
	}
	return Pos{File: d.file, Line: t.Position.Line, Col: t.Position.Column}
}

// mapping lists the entries of a mapping; a key that is there twice is a mistake.
func (d *document) mapping(n ast.Node, what string) ([]entry, bool) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		d.fail(d.pos(n), "write `key: value` lines", "%s must be a mapping, not %s", what, kindOf(n))
		return nil, false
	}
	var out []entry
	seen := make(map[string]bool)
	for _, v := range values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			d.fail(d.tokenPos(v.Key.GetToken()), "", "a key of %s must be a plain name", what)
			continue
		}
		e := entry{key: key.Value, pos: d.pos(key), value: v.Value}
		if seen[e.key] {
			d.fail(e.pos, "leave one of them out", "key %s is there twice", e.key)
			continue
		}
		seen[e.key] = true
		out = append(out, e)
	}
	return out, true
}

// kindOf names a YAML value in an error.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "empty"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		return "an anchor, alias or tag"
	}
	return "a " + strings.ToLower(n.Type().String())
}

// text is a scalar as it was written, and where its first character stands. Definitions know
// text only, so that an expression may look like a number.
func (d *document) text(e entry, what string) (Expression, bool) {
	fail := func() (Expression, bool) {
		p := e.pos
		if e.value != nil && e.value.Type() != ast.NullType {
			p = d.pos(e.value)
		}
		d.fail(p, "write text", "%s must be text, not %s", what, kindOf(e.value))
		return Expression{}, false
	}
	switch v := e.value.(type) {
	case *ast.StringNode:
		p := d.pos(v)
		if v.Token.Type == token.SingleQuoteType || v.Token.Type == token.DoubleQuoteType {
			p.Col++ // the text begins behind the quote
		}
		if strings.TrimSpace(v.Value) == "" {
			return fail()
		}
		return Expression{Text: v.Value, Pos: p}, true
	case *ast.LiteralNode:
		if strings.TrimSpace(v.Value.Value) == "" {
			return fail()
		}
		return Expression{Text: strings.Trim(v.Value.Value, "\n"), Pos: d.block(v)}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return Expression{Text: v.GetToken().Value, Pos: d.pos(v)}, true
	}
	return fail()
}

// block is where a block scalar's text begins: on the first line below its | or > that is
// not blank, behind the indentation.
func (d *document) block(v *ast.LiteralNode) Pos {
	p := d.tokenPos(v.Start)
	lines := d.lines[d.file]
	for n := p.Line; n < len(lines); n++ {
		if text := strings.TrimLeft(lines[n], " "); text != "" {
			return Pos{File: d.file, Line: n + 1, Col: len(lines[n]) - len(text) + 1}
		}
	}
	return p
}

func (d *document) read(body ast.Node) {
	entries, ok := d.mapping(body, "a definition")
	if !ok {
		return
	}
	isEvent, isView := -1, -1
	for i, e := range entries {
		switch e.key {
		case "event":
			isEvent = i
		case "view":
			isView = i
		}
	}
	switch {
	case isEvent >= 0 && isView >= 0:
		d.fail(entries[max(isEvent, isView)].pos, "put a line with --- between the two", "a definition is either an event or a view")
	case isEvent >= 0:
		d.event(entries)
	case isView >= 0:
		d.view(entries)
	default:
		p, hint := d.pos(body), "begin it with `event: name` or `view: name`"
		if len(entries) > 0 {
			p = entries[0].pos
			if near := Nearest(entries[0].key, []string{"event", "view"}); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
		}
		d.fail(p, hint, "the definition is neither an event nor a view")
	}
}

func (d *document) unknownKey(e entry, known ...string) {
	d.fail(e.pos, suggest(e.key, known, "the keys are "), "unknown key %s", e.key)
}

// missing notes that keys are absent from the definition that begins at p.
func (d *document) missing(p Pos, what string, entries []entry, keys ...string) {
	for _, k := range keys {
		found := false
		for _, e := range entries {
			found = found || e.key == k
		}
		if !found {
			d.fail(p, "add `"+k+":`", "%s has no %s", what, k)
		}
	}
}
