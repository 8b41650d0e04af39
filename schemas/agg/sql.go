package agg

import (
	"fmt"
	"strings"

	"watershed/schemas"
)

// wide is the argument as Nullable of a type: an aggregate of it is null over nothing.
func wide(arg, typ string) string {
	return fmt.Sprintf("CAST(%s, '%s')", arg, quoted("Nullable("+typ+")"))
}

// quoted is a type's name inside a string literal.
func quoted(typ string) string { return strings.ReplaceAll(typ, "'", `\'`) }

// value is the argument in its declared type. A float64 has 0 added, which turns -0 into 0:
// ClickHouse hashes the two apart, and min and max would keep whichever came first.
func value(arg string, t schemas.Type) string {
	if t.Kind == schemas.Float64 {
		return fmt.Sprintf("((%s) + 0.)", arg)
	}
	return arg
}

// present is an aggregate function's call over the non-null arguments in a type that is not
// Nullable, as states of uniq must be: a Nullable argument has other bytes.
// The condition, if any, drops further rows.
func present(fn, params, arg string, nullable bool, t schemas.Type, cond string) string {
	return presentAs(fn, params, arg, nullable, t, cond, func(x string) string { return x })
}

// presentAs is the call over what as makes of each argument.
func presentAs(fn, params, arg string, nullable bool, t schemas.Type, cond string, as func(x string) string) string {
	arg = value(arg, t)
	if !nullable && cond == "" {
		return fmt.Sprintf("%s%s(%s)", fn, params, as("CAST("+arg+", '"+quoted(t.ClickHouse())+"')"))
	}
	keep := "isNotNull(" + arg + ")"
	if cond != "" {
		keep = fmt.Sprintf("ifNull(%s, false)", cond)
	}
	return fmt.Sprintf("%sIf%s(%s, %s)", fn, params, as("assumeNotNull("+wide(arg, t.ClickHouse())+")"), keep)
}

// plain is a type without its SimpleAggregateFunction.
func plain(typ string) string {
	if rest, ok := strings.CutPrefix(typ, "SimpleAggregateFunction("); ok {
		_, rest, _ = strings.Cut(rest, ", ")
		return strings.TrimSuffix(rest, ")")
	}
	return typ
}
