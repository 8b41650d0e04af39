package view

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/expr"
)

// foldVersion rises when a plan of the same definition, measures and functions would give
// other states: a new number makes new plans of all views.
const foldVersion = 1

// CompileSet compiles all views of the set. The error is a schemas.Errors of every mistake.
func CompileSet(s *schemas.Set) ([]*Plan, error) {
	var plans []*Plan
	var errs schemas.Errors
	for _, v := range s.Views {
		ev := s.Event(v.From)
		if ev == nil {
			errs = append(errs, &schemas.Error{Pos: v.Pos, Msg: fmt.Sprintf("view %s is from %s, which no event declares", v.Name, v.From)})
			continue
		}
		p, err := Compile(v, ev)
		if err != nil {
			errs = collect(errs, v.Pos, err)
			continue
		}
		plans = append(plans, p)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return plans, nil
}

// Compile compiles a view over an event. The error is a schemas.Errors of every mistake.
func Compile(v *schemas.View, ev *schemas.Event) (*Plan, error) {
	env, err := expr.NewEnv(ev)
	if err != nil {
		return nil, collect(nil, ev.Pos, err)
	}
	c := compiler{env: env, plan: &Plan{View: v, Event: ev}}
	c.where(v.Where)
	for _, d := range v.Dimensions {
		c.dimension(d)
	}
	for _, m := range v.Measures {
		c.measure(m)
	}
	if len(v.Measures) == 0 {
		c.fail(v.Pos, "view %s measures nothing: give it a measure such as count()", v.Name)
	}
	if c.columns(); len(c.errs) > 0 {
		return nil, c.errs
	}
	if c.plan.Hash, err = c.hash(); err != nil {
		return nil, fmt.Errorf("hash view %s: %w", v.Name, err)
	}
	return c.plan, nil
}

type compiler struct {
	env  *expr.Env
	plan *Plan
	errs schemas.Errors
	text canonical
}

func (c *compiler) fail(pos schemas.Pos, format string, args ...any) {
	c.errs = append(c.errs, &schemas.Error{Pos: pos, Msg: fmt.Sprintf(format, args...)})
}

// collect adds an error's mistakes; one that says no place has happened at pos.
func collect(errs schemas.Errors, pos schemas.Pos, err error) schemas.Errors {
	var many schemas.Errors
	var one *schemas.Error
	switch {
	case errors.As(err, &many):
		return append(errs, many...)
	case errors.As(err, &one):
		return append(errs, one)
	}
	return append(errs, &schemas.Error{Pos: pos, Msg: err.Error()})
}

func (c *compiler) where(x schemas.Expression) {
	if x.IsZero() {
		return
	}
	e, err := c.env.Compile(x)
	switch {
	case err != nil:
		c.errs = collect(c.errs, x.Pos, err)
	case e.Type().Kind != schemas.Bool:
		c.fail(x.Pos, "where wants a condition, not a %s", e.Type())
	default:
		c.plan.Where, c.text.Where = e, e.String()
	}
}

func (c *compiler) dimension(d schemas.Definition) {
	e, err := c.env.Compile(d.Expression)
	if err != nil {
		c.errs = collect(c.errs, d.Expression.Pos, err)
		return
	}
	c.plan.Dimensions = append(c.plan.Dimensions, Dimension{
		Name: d.Name, Type: e.Type(), Nullable: e.Nullable(), Expr: e, Bucket: e.Bucket(),
	})
	c.text.Dimensions = append(c.text.Dimensions, canonicalDimension{d.Name, e.String()})
}

func (c *compiler) measure(d schemas.Definition) {
	m, err := c.env.CompileMeasure(d.Expression)
	if err != nil {
		c.errs = collect(c.errs, d.Expression.Pos, err)
		return
	}
	var arg schemas.Type
	text := canonicalMeasure{Name: d.Name, Func: m.Func, Levels: m.Levels}
	if m.Arg != nil {
		arg, text.Arg = m.Arg.Type(), m.Arg.String()
	}
	f, err := agg.New(m.Func, arg, m.Levels)
	if err != nil {
		c.errs = collect(c.errs, m.Pos, err)
		return
	}
	text.Version = f.Version()
	c.plan.Measures = append(c.plan.Measures, Measure{d.Name, f, m.Arg, f.Columns(d.Name)})
	c.text.Measures = append(c.text.Measures, text)
}

// columns refuses a name that two columns of the plan would have: avg makes names of its own.
func (c *compiler) columns() {
	owner := make(map[string]string)
	take := func(column, name string, pos schemas.Pos) {
		if other, taken := owner[column]; taken {
			c.fail(pos, "%s needs a column %s, which %s has already: rename one of them", name, column, other)
		}
		owner[column] = name
	}
	position := func(defs []schemas.Definition, name string) schemas.Pos {
		for _, d := range defs {
			if d.Name == name {
				return d.Pos
			}
		}
		return c.plan.View.Pos
	}
	for _, d := range c.plan.Dimensions {
		take(d.Name, d.Name, position(c.plan.View.Dimensions, d.Name))
	}
	for _, m := range c.plan.Measures {
		pos := position(c.plan.View.Measures, m.Name)
		for _, col := range m.Columns {
			take(col.Name, m.Name, pos)
		}
		if m.Columns[0].Name != m.Name { // the finished value's own name
			take(m.Name, m.Name, pos)
		}
	}
}

// canonical is what a plan's hash covers: expressions in canonical text, so that spaces and
// comments make no new plan, the event's whole schema, and every version number.
type canonical struct {
	View       string               `json:"view"`
	Event      *schemas.Event       `json:"event"`
	Where      string               `json:"where"`
	Dimensions []canonicalDimension `json:"dimensions"`
	Measures   []canonicalMeasure   `json:"measures"`
	Functions  int                  `json:"functions"`
	Fold       int                  `json:"fold"`
}

type canonicalDimension struct {
	Name string `json:"name"`
	Is   string `json:"is"`
}

type canonicalMeasure struct {
	Name    string    `json:"name"`
	Func    string    `json:"func"`
	Version int       `json:"version"`
	Arg     string    `json:"arg"`
	Levels  []float64 `json:"levels"`
}

func (c *compiler) hash() (string, error) {
	c.text.View, c.text.Event = c.plan.View.Name, c.plan.Event
	c.text.Functions, c.text.Fold = expr.Version, foldVersion
	text, err := json.Marshal(c.text)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
