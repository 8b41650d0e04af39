package expr

import (
	"fmt"
	"maps"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"watershed/schemas"
)

// How many levels quantiles() takes, and how many bounds histogram().
const (
	MaxLevels = 16
	MaxBounds = 32
)

// The types of ours that CEL does not know, and that of the measures.
var (
	decimalType   = cel.OpaqueType("decimal")
	dateType      = cel.OpaqueType("date")
	aggregateType = cel.OpaqueType("aggregate")
)

// celType is the type by which CEL knows a kind. Optional fields have the same one: CEL's
// nullable wrappers exist for some kinds only, so null is tracked by the compiler instead.
func celType(k schemas.Kind) *cel.Type {
	switch k {
	case schemas.String:
		return cel.StringType
	case schemas.Bool:
		return cel.BoolType
	case schemas.Int64:
		return cel.IntType
	case schemas.Float64:
		return cel.DoubleType
	case schemas.Decimal:
		return decimalType
	case schemas.Timestamp:
		return cel.TimestampType
	default:
		return dateType
	}
}

// An Env compiles expressions over the fields of one event. It may be used by several
// goroutines.
type Env struct {
	event  *schemas.Event
	cel    *cel.Env
	fields map[string]*schemas.Field
	names  []string // of fields
}

// NewEnv declares the event's fields, and what can be said about them, to CEL.
func NewEnv(ev *schemas.Event) (*Env, error) {
	e := &Env{event: ev, fields: make(map[string]*schemas.Field, len(ev.Fields))}
	opts := declarations()
	for i := range ev.Fields {
		f := &ev.Fields[i]
		e.fields[f.Name] = f
		e.names = append(e.names, f.Name)
		opts = append(opts, cel.Variable(f.Name, celType(f.Type.Kind)))
	}
	var err error
	if e.cel, err = cel.NewCustomEnv(opts...); err != nil {
		return nil, fmt.Errorf("declare event %s to CEL: %w", ev.Name, err)
	}
	return e, nil
}

// A signature is one overload: argument types, then the result's.
type signature []*cel.Type

// functions are all that can be called, global and as a member. CEL's standard library is
// not there: what is not here is a type error.
func functions() (global, member map[string][]signature) {
	b, i, f, s, t, d, dec := cel.BoolType, cel.IntType, cel.DoubleType, cel.StringType, cel.TimestampType, dateType, decimalType
	kinds := []*cel.Type{b, i, f, s, t, d, dec}
	ordered := []*cel.Type{i, f, s, t, d, dec}

	global = map[string][]signature{
		operators.LogicalNot: {{b, b}},
		operators.LogicalAnd: {{b, b, b}},
		operators.LogicalOr:  {{b, b, b}},
		operators.Add:        {{i, i, i}, {f, f, f}, {dec, dec, dec}, {s, s, s}},
		operators.Subtract:   {{i, i, i}, {f, f, f}, {dec, dec, dec}},
		operators.Multiply:   {{i, i, i}, {f, f, f}},
		operators.Divide:     {{i, i, i}, {f, f, f}},
		operators.Modulo:     {{i, i, i}},
		operators.Negate:     {{i, i}, {f, f}, {dec, dec}},
		"int":                {{i, i}, {f, i}, {t, i}},
		"double":             {{f, f}, {i, f}, {dec, f}},
		"size":               {{s, i}},
		"timestamp":          {{s, t}},
		"decimal":            {{s, dec}},
		"date":               {{t, d}, {s, d}},
		"bucket":             {{t, s, t}},
	}
	for _, k := range kinds {
		for _, op := range []string{operators.Equals, operators.NotEquals} {
			global[op] = append(global[op], signature{k, k, b})
			if k == b || k == i || k == f || k == s { // the others take null as it is
				global[op] = append(global[op], signature{k, cel.NullType, b}, signature{cel.NullType, k, b})
			}
		}
		global[present] = append(global[present], signature{k, b})
		global[operators.In] = append(global[operators.In], signature{k, cel.ListType(k), b})
		global[operators.Conditional] = append(global[operators.Conditional], signature{b, k, k, k})
		if k == b || k == i || k == f || k == s {
			global[operators.Conditional] = append(global[operators.Conditional],
				signature{b, k, cel.NullType, k}, signature{b, cel.NullType, k, k})
		}
	}
	for _, op := range []string{operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals} {
		for _, k := range ordered {
			global[op] = append(global[op], signature{k, k, b})
		}
	}
	member = map[string][]signature{
		"size": {{s, i}}, "startsWith": {{s, s, b}}, "endsWith": {{s, s, b}}, "contains": {{s, s, b}},
		"matches": {{s, s, b}}, "lowerAscii": {{s, s}}, "upperAscii": {{s, s}},
	}
	for name, g := range getters {
		member[name] = append(member[name], signature{t, i})
		if g.ofDate {
			member[name] = append(member[name], signature{d, i})
		}
	}
	for _, k := range kinds {
		global["uniq"] = append(global["uniq"], signature{k, aggregateType})
		global["distinct"] = append(global["distinct"], signature{k, aggregateType})
	}
	for _, k := range ordered {
		global["min"] = append(global["min"], signature{k, aggregateType})
		global["max"] = append(global["max"], signature{k, aggregateType})
	}
	for _, k := range []*cel.Type{i, f, dec} {
		global["sum"] = append(global["sum"], signature{k, aggregateType})
		global["avg"] = append(global["avg"], signature{k, aggregateType})
		for _, name := range variances {
			global[name] = append(global[name], signature{k, aggregateType})
		}
	}
	global["count"] = []signature{{aggregateType}, {b, aggregateType}}
	for _, k := range []*cel.Type{i, f} {
		sig := signature{k}
		for range MaxLevels {
			sig = append(sig, f)
			global["quantiles"] = append(global["quantiles"], append(slices.Clone(sig), aggregateType))
		}
		sig = signature{k}
		for range MaxBounds {
			sig = append(sig, k)
			global["histogram"] = append(global["histogram"], append(slices.Clone(sig), aggregateType))
		}
	}
	return global, member
}

// present is the function that has() stands for. Nobody can write its name.
const present = "@has"

// aggregates are the functions that a measure is made by.
var aggregates = append([]string{"count", "sum", "min", "max", "avg", "uniq", "distinct", "quantiles", "histogram"}, variances...)

var variances = []string{"variance", "variance_sample", "stddev", "stddev_sample"}

func declarations() []cel.EnvOption {
	global, member := functions()
	names := maps.Clone(global)
	maps.Copy(names, member)
	// CEL's own has() wants a selection, and its checker keeps the name: ours becomes a call.
	has := cel.GlobalMacro("has", 1, func(f cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
		return f.NewCall(present, args[0]), nil
	})
	opts := []cel.EnvOption{cel.Macros(has), cel.EnableMacroCallTracking(), cel.ParserRecursionLimit(100), cel.ParserExpressionSizeLimit(16 << 10)}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		var overloads []cel.FunctionOpt
		for n, sig := range global[name] {
			last := len(sig) - 1
			overloads = append(overloads, cel.Overload(fmt.Sprintf("%s_%d", name, n), sig[:last], sig[last]))
		}
		for n, sig := range member[name] {
			last := len(sig) - 1
			overloads = append(overloads, cel.MemberOverload(fmt.Sprintf("member_%s_%d", name, n), sig[:last], sig[last]))
		}
		opts = append(opts, cel.Function(name, overloads...))
	}
	return opts
}
