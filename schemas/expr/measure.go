package expr

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"watershed/schemas"
)

// A Measure is the aggregate call that a measure's expression is.
type Measure struct {
	Func   string    // the aggregate's name
	Arg    *Expr     // nil: count()
	Levels []float64 // of quantiles, each within [0, 1]; the bounds of histogram, ascending
	Pos    schemas.Pos
	text   string
}

// String is the canonical text of the call.
func (m *Measure) String() string { return m.text }

// CompileMeasure compiles a measure: one aggregate call, whose first argument is a scalar
// expression. Its error is a schemas.Errors.
func (e *Env) CompileMeasure(x schemas.Expression) (*Measure, error) {
	checked, err := e.check(x, func(root ast.Expr, c *compiler) {
		isAggregate := func(e ast.Expr) bool {
			return e.Kind() == ast.CallKind && !e.AsCall().IsMemberFunction() && slices.Contains(aggregates, e.AsCall().FunctionName())
		}
		if !isAggregate(root) {
			hint := "write one of " + strings.Join(aggregates, ", ") + " around it, for example sum(x)"
			if root.Kind() == ast.CallKind {
				if near := schemas.Nearest(root.AsCall().FunctionName(), aggregates); near != "" {
					hint = "did you mean " + near + "?"
				}
			}
			nested := false
			walk(root, func(call ast.Expr) { nested = nested || isAggregate(call) })
			if nested {
				hint = "a measure is one aggregate; combine finished values in the query"
			}
			c.fail(root, "a measure is one aggregate call", hint)
			return
		}
		for _, a := range root.AsCall().Args() {
			walk(a, func(call ast.Expr) {
				if isAggregate(call) {
					c.fail(call, "an aggregate cannot stand within another", "declare two measures")
				}
			})
		}
	})
	if err != nil {
		return nil, err
	}
	c := &compiler{env: e, x: x, ast: checked}
	root := checked.Expr()
	loc := at(x, checked.SourceInfo().GetStartLocation(root.ID()), "", "")
	m := &Measure{Func: root.AsCall().FunctionName(), Pos: loc.Pos}
	args := root.AsCall().Args()
	if len(args) > 0 {
		if m.Arg, err = c.expr(args[0]); err != nil {
			return nil, err
		}
		if m.Func == "histogram" {
			m.Levels = c.bounds(args[1:])
		} else {
			m.Levels = c.levels(args[1:])
		}
	}
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	texts := make([]string, len(args))
	for i, a := range args {
		texts[i] = c.canonical(a)
	}
	m.text = m.Func + "(" + strings.Join(texts, ", ") + ")"
	return m, nil
}

func (c *compiler) levels(args []ast.Expr) []float64 {
	var out []float64
	for _, a := range args {
		var v types.Double
		ok := a.Kind() == ast.LiteralKind
		if ok {
			v, ok = a.AsLiteral().(types.Double)
		}
		if !ok || !(v >= 0 && v <= 1) {
			c.fail(a, "a quantile's level is a literal from 0.0 to 1.0", "0.5 is the median, 0.99 exceeds 99 of 100 values")
			continue
		}
		out = append(out, float64(v)+0)
	}
	return out
}

// maxWhole is up to where a float64 holds every integer.
const maxWhole = 1 << 53

func (c *compiler) bounds(args []ast.Expr) []float64 {
	var out []float64
	for _, a := range args {
		var v float64
		ok := a.Kind() == ast.LiteralKind
		if ok {
			switch x := a.AsLiteral().(type) {
			case types.Int:
				v, ok = float64(x), x >= -maxWhole && x <= maxWhole
			case types.Double:
				v = float64(x) + 0
			default:
				ok = false
			}
		}
		switch {
		case !ok:
			c.fail(a, "a histogram's bound is a literal, and an integer of at most 2^53", "histogram(x, 10, 100) counts below 10, from 10, and from 100")
		case len(out) > 0 && v <= out[len(out)-1]:
			c.fail(a, "a histogram's bounds are ascending", "histogram(x, 10, 100) counts below 10, from 10, and from 100")
		default:
			out = append(out, v)
		}
	}
	return out
}
