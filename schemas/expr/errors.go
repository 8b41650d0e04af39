package expr

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"

	"watershed/schemas"
)

// at makes an error at a place in an expression: line from 1, column from 0, as CEL counts.
// In a block scalar every line of the text is indented as the first is, so that columns of
// later lines are right too; in a folded or quoted scalar they are as near as can be.
func at(x schemas.Expression, loc common.Location, msg, hint string) *schemas.Error {
	line, col := max(loc.Line(), 1), max(loc.Column(), 0)
	e := &schemas.Error{Pos: x.Pos, Msg: msg, Hint: hint, Caret: col + 1}
	if x.Pos.Line > 0 {
		e.Pos.Line, e.Pos.Col = x.Pos.Line+line-1, x.Pos.Col+col
	} else {
		e.Pos.Line, e.Pos.Col = line, col+1
	}
	if lines := strings.Split(x.Text, "\n"); line <= len(lines) {
		e.Line = lines[line-1]
	}
	return e
}

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	overload   = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'`)
	operator   = regexp.MustCompile(`[!\-+*/%=<>&|?:]+|@in`)
	celName    = strings.NewReplacer("int", "int64", "double", "float64")
)

// translate renders CEL's issues in the words of definition files.
func (e *Env) translate(x schemas.Expression, issues *cel.Issues) error {
	var out schemas.Errors
	for _, i := range issues.Errors() {
		msg, hint := i.Message, ""
		if m := undeclared.FindStringSubmatch(msg); m != nil {
			msg, hint = e.unknown(m[1])
		} else if m := overload.FindStringSubmatch(msg); m != nil {
			msg, hint = mismatch(m[1], m[2])
		}
		out = append(out, at(x, i.Location, msg, hint))
	}
	return out
}

func (e *Env) unknown(name string) (msg, hint string) {
	msg = "unknown field or function " + name
	global, member := functions()
	names := slices.Concat(e.names, slices.Sorted(maps.Keys(global)), slices.Sorted(maps.Keys(member)))
	if near := schemas.Nearest(name, names); near != "" {
		return msg, "did you mean " + near + "?"
	}
	return msg, "the fields of " + e.event.Name + " are " + strings.Join(e.names, ", ")
}

func mismatch(function, args string) (msg, hint string) {
	if op := operator.FindString(function); op != "" && !strings.ContainsAny(function, "abcdefghjklmopqrstuvwxyz") {
		function = strings.TrimPrefix(op, "@")
		if function == "?" || function == "?:" {
			function = "?:"
		}
		msg = "operator " + function + " is not defined for " + celName.Replace(args)
	} else {
		msg = function + " is not defined for " + celName.Replace(args)
	}
	switch {
	case strings.Contains(args, "aggregate"):
		hint = "aggregates cannot be nested or combined; combine finished values in the query"
	case strings.Contains(args, "int") && strings.Contains(args, "double"):
		hint = "write 1.0 for a float64, or convert with int() or double()"
	case strings.Contains(args, "decimal"):
		hint = `write decimal("1.50") for a decimal, or convert with double()`
	case strings.Contains(args, "timestamp") && strings.Contains(args, "string"):
		hint = `write timestamp("2024-01-31T00:00:00Z")`
	case function == "quantiles":
		hint = "for example quantiles(x, 0.5, 0.95), with x an int64 or float64"
	}
	return msg, hint
}

// walk calls f on every call in the expression, outermost first.
func walk(e ast.Expr, f func(ast.Expr)) {
	switch e.Kind() {
	case ast.CallKind:
		f(e)
		c := e.AsCall()
		if c.IsMemberFunction() {
			walk(c.Target(), f)
		}
		for _, a := range c.Args() {
			walk(a, f)
		}
	case ast.ListKind:
		for _, a := range e.AsList().Elements() {
			walk(a, f)
		}
	case ast.SelectKind:
		walk(e.AsSelect().Operand(), f)
	}
}
