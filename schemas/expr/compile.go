package expr

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"watershed/schemas"
	"watershed/schemas/column"
)

// maxSQL bounds the SQL of one expression: some forms name an operand twice.
const maxSQL = 64 << 10

// Compile compiles a dimension or a condition. Its error is a schemas.Errors.
func (e *Env) Compile(x schemas.Expression) (*Expr, error) {
	checked, err := e.check(x, func(root ast.Expr, c *compiler) {
		walk(root, func(call ast.Expr) {
			if name := call.AsCall().FunctionName(); slices.Contains(aggregates, name) && !call.AsCall().IsMemberFunction() {
				c.fail(call, name+"() is an aggregate, it cannot stand here", "aggregates belong to measures")
			}
		})
	})
	if err != nil {
		return nil, err
	}
	c := &compiler{env: e, x: x, ast: checked}
	return c.expr(checked.Expr())
}

// check parses, lets the caller look at the parsed form, and checks types.
func (e *Env) check(x schemas.Expression, look func(ast.Expr, *compiler)) (*ast.AST, error) {
	parsed, issues := e.cel.Parse(x.Text)
	if issues.Err() != nil {
		return nil, e.translate(x, issues)
	}
	c := &compiler{env: e, x: x, ast: parsed.NativeRep()}
	look(parsed.NativeRep().Expr(), c)
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(negateLiteral))
	checked, issues := e.cel.Check(parsed)
	if issues.Err() != nil {
		return nil, e.translate(x, issues)
	}
	return checked.NativeRep(), nil
}

// negateLiteral makes the negation of a number the negated number. Both have the same canonical
// text, and read back that is the number.
func negateLiteral(e ast.Expr) {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.Negate {
		return
	}
	if a := e.AsCall().Args()[0]; a.Kind() == ast.LiteralKind {
		switch v := a.AsLiteral().(type) {
		case types.Int:
			if v != math.MinInt64 {
				e.SetKindCase(ast.NewExprFactory().NewLiteral(e.ID(), -v))
			}
		case types.Double:
			e.SetKindCase(ast.NewExprFactory().NewLiteral(e.ID(), -v))
		}
	}
}

// A compiler makes nodes of one checked expression and collects mistakes.
type compiler struct {
	env  *Env
	x    schemas.Expression
	ast  *ast.AST
	errs schemas.Errors
}

// fail notes a mistake; the nil node that it returns stands for what could not be compiled.
func (c *compiler) fail(e ast.Expr, msg, hint string) *node {
	c.errs = append(c.errs, at(c.x, c.ast.SourceInfo().GetStartLocation(e.ID()), msg, hint))
	return nil
}

func (c *compiler) expr(e ast.Expr) (*Expr, error) {
	root := c.compile(e)
	if root != nil && root.null {
		c.fail(e, "null alone has no type", "")
	}
	if root != nil && len(root.sql) > maxSQL {
		c.fail(e, fmt.Sprintf("the expression is too large: %d bytes of SQL", len(root.sql)), "split it, or nest conditions less deeply")
	}
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	fields := make(map[string]bool)
	collect(root, fields)
	return &Expr{root: root, text: root.key, sql: exactSQL(root), fields: slices.Sorted(maps.Keys(fields))}, nil
}

func collect(n *node, fields map[string]bool) {
	if n.field != "" {
		fields[n.field] = true
	}
	for _, a := range n.args {
		collect(a, fields)
	}
}

func (c *compiler) compile(e ast.Expr) *node {
	var n *node
	switch e.Kind() {
	case ast.LiteralKind:
		n = c.literal(e)
	case ast.IdentKind:
		f := c.env.fields[e.AsIdent()]
		n = &node{typ: f.Type, nullable: f.Optional, field: f.Name, sql: quoteIdent(f.Name)}
	case ast.CallKind:
		n = c.call(e)
	default:
		return c.fail(e, "lists, maps, messages and selections have no meaning here", "lists stand only behind in")
	}
	if n == nil {
		return nil
	}
	n = c.own(n)
	n.key = c.canonical(e)
	if len(n.sql) > maxSQL {
		return c.fail(e, "the expression is too large", "nest conditions less deeply")
	}
	return c.fold(e, n)
}

// fold evaluates a call whose arguments are all constants.
func (c *compiler) fold(e ast.Expr, n *node) *node {
	if n.run == nil || n.con != nil {
		return n
	}
	args := make([]operand, len(n.args))
	for i, a := range n.args {
		if a.con == nil {
			return n
		}
		args[i] = operand{Vector: *a.con}
	}
	v := n.run(1, args)
	if v.Valid != nil && !v.Valid[0] {
		return c.fail(e, n.key+" is always null: it overflows, divides by zero or is not finite", "")
	}
	v.Kind, v.Valid = n.typ.Kind, nil
	if v.Dict != nil { // a constant's dictionary has one entry
		v.Codes, v.Dict = []int32{0}, &column.Dict{Strings: []string{v.Dict.Strings[v.Codes[0]]}}
	}
	out := constant(n.typ, v)
	out.key = n.key
	return out
}

func (c *compiler) literal(e ast.Expr) *node {
	switch v := e.AsLiteral().(type) {
	case types.Int:
		return constant(schemas.Type{Kind: schemas.Int64}, column.Vector{Ints: []int64{int64(v)}})
	case types.Double:
		f := float64(v)
		if !finite(f) {
			return c.fail(e, "the number is not finite", "")
		}
		return constant(schemas.Type{Kind: schemas.Float64}, column.Vector{Floats: []float64{f + 0}})
	case types.Bool:
		return constant(schemas.Type{Kind: schemas.Bool}, column.Vector{Bools: []bool{bool(v)}})
	case types.String:
		return constant(schemas.Type{Kind: schemas.String}, column.Vector{Codes: []int32{0}, Dict: &column.Dict{Strings: []string{string(v)}}})
	case types.Null:
		return &node{null: true, nullable: true, sql: "NULL"}
	}
	return c.fail(e, "a literal of this type has no meaning here", "")
}

// constant makes the node of a constant; its SQL is of exactly the constant's type.
func constant(t schemas.Type, v column.Vector) *node {
	v.Kind = t.Kind
	return &node{typ: t, con: &v, sql: literalSQL(t, v)}
}

// call compiles the arguments and then the function. The checker has seen that the types fit.
func (c *compiler) call(e ast.Expr) *node {
	call := e.AsCall()
	name, exprs := call.FunctionName(), call.Args()
	if call.IsMemberFunction() {
		exprs = append([]ast.Expr{call.Target()}, exprs...)
	}
	if name == operators.In {
		return c.in(e, exprs)
	}
	args := make([]*node, len(exprs))
	for i, x := range exprs {
		if args[i] = c.compile(x); args[i] == nil {
			return nil
		}
		if args[i].null && !takesNull(name) {
			return c.fail(x, "null cannot be an operand here", "compare with == null or has()")
		}
	}
	switch name {
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return c.comparison(e, name, args)
	case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot:
		return logic(name, args)
	case operators.Conditional:
		return c.conditional(e, args)
	case operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate:
		return c.arithmetic(e, name, args)
	case present:
		return isNull(args[0], false)
	case "int", "double":
		return convert(name, args[0])
	case "timestamp", "decimal", "date", "bucket":
		return c.timeOrDecimal(e, name, exprs, args)
	case "size", "startsWith", "endsWith", "contains", "matches", "lowerAscii", "upperAscii":
		return c.text(e, name, exprs, args)
	}
	if g, ok := getters[name]; ok {
		return g.node(args[0])
	}
	return c.fail(e, name+" has no vectorised form", "")
}

func takesNull(name string) bool {
	return name == operators.Equals || name == operators.NotEquals || name == operators.Conditional
}

// strict makes the node of a function that is null exactly where an operand is, or where the
// kernel errs, if it can.
func strict(kind schemas.Kind, errs bool, sql string, run kernel, args ...*node) *node {
	n := &node{typ: schemas.Type{Kind: kind}, nullable: errs, sql: sql, run: run, args: args}
	for _, a := range args {
		n.nullable = n.nullable || a.nullable
	}
	return n
}

// own returns a copy where a conversion that does nothing returned its operand.
func (c *compiler) own(n *node) *node {
	if n.key == "" {
		return n
	}
	copied := *n
	return &copied
}

// canonical is cel-go's text of a checked expression.
func (c *compiler) canonical(e ast.Expr) string {
	text, err := cel.ExprToString(e, c.ast.SourceInfo())
	if err != nil {
		c.fail(e, "the expression has no canonical text: "+err.Error(), "")
	}
	return text
}
