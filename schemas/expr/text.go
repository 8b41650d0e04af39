package expr

import (
	"regexp"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"cel.dev/cel-go/common/ast"

	"watershed/schemas"
	"watershed/schemas/column"
)

// A perPair keeps what was made for the two dictionaries seen last. Blocks that share
// dictionaries share it; with two goroutines at work the later one wins.
type perPair[T any] struct {
	last atomic.Pointer[pairEntry[T]]
}

type pairEntry[T any] struct {
	a, b  *column.Dict
	value T
}

func (p *perPair[T]) get(a, b *column.Dict, compute func() T) T {
	if e := p.last.Load(); e != nil && e.a == a && e.b == b {
		return e.value
	}
	e := &pairEntry[T]{a, b, compute()}
	p.last.Store(e)
	return e.value
}

// lookup maps codes through a table of the dictionary's length. A code at an invalid row may
// be anything.
func lookup[T any](out []T, a operand, table []T) {
	for i := range out {
		if c := uint32(a.Codes[i*a.step]); int(c) < len(table) {
			out[i] = table[c]
		}
	}
}

// perString makes the kernel of a condition on one string, asked once per dictionary entry.
func perString(f func(string) bool) kernel {
	var tables perPair[[]bool]
	return func(n int, args []operand) column.Vector {
		a := args[0]
		out := make([]bool, n)
		lookup(out, a, tables.get(a.Dict, nil, func() []bool {
			table := make([]bool, len(a.Dict.Strings))
			for i, s := range a.Dict.Strings {
				table[i] = f(s)
			}
			return table
		}))
		return column.Vector{Bools: out, Valid: both(n, a)}
	}
}

// mapped makes the kernel of a function from string to string, called once per entry.
func mapped(f func(string) string) kernel {
	var dicts perPair[*column.Dict]
	return func(n int, args []operand) column.Vector {
		a := args[0]
		d := dicts.get(a.Dict, nil, func() *column.Dict {
			out := &column.Dict{Strings: make([]string, len(a.Dict.Strings))}
			for i, s := range a.Dict.Strings {
				out.Strings[i] = f(s)
			}
			return out
		})
		return column.Vector{Codes: a.Codes, Dict: d, Valid: both(n, a)}
	}
}

func sizes() kernel {
	var tables perPair[[]int64]
	return func(n int, args []operand) column.Vector {
		a := args[0]
		out := make([]int64, n)
		lookup(out, a, tables.get(a.Dict, nil, func() []int64 {
			table := make([]int64, len(a.Dict.Strings))
			for i, s := range a.Dict.Strings {
				table[i] = int64(utf8.RuneCountInString(s))
			}
			return table
		}))
		return column.Vector{Ints: out, Valid: both(n, a)}
	}
}

// text is the functions of strings.
func (c *compiler) text(e ast.Expr, name string, exprs []ast.Expr, args []*node) *node {
	a := args[0]
	switch name {
	case "size":
		return strict(schemas.Int64, false, "toInt64(lengthUTF8("+a.sql+"))", sizes(), a)
	case "lowerAscii":
		return strict(schemas.String, false, "lower("+a.sql+")", mapped(func(s string) string { return ascii(s, 'A', 'Z') }), a)
	case "upperAscii":
		return strict(schemas.String, false, "upper("+a.sql+")", mapped(func(s string) string { return ascii(s, 'a', 'z') }), a)
	case "matches":
		return c.matches(exprs[1], a, args[1])
	}
	b := args[1]
	var f func(s, t string) bool
	var sql string
	switch name {
	case "startsWith":
		f, sql = strings.HasPrefix, "startsWith("+a.sql+", "+b.sql+")"
	case "endsWith":
		f, sql = strings.HasSuffix, "endsWith("+a.sql+", "+b.sql+")"
	default:
		f, sql = strings.Contains, "(position("+a.sql+", "+b.sql+") > 0)"
	}
	var n *node
	if b.con != nil {
		t := b.con.Dict.Strings[0]
		n = strict(schemas.Bool, false, sql, perString(func(s string) bool { return f(s, t) }), a)
	} else {
		n = strict(schemas.Bool, false, sql, func(n int, args []operand) column.Vector {
			out := make([]bool, n)
			for i := range out {
				out[i] = f(args[0].str(i), args[1].str(i))
			}
			return column.Vector{Bools: out, Valid: both(n, args...)}
		}, a, b)
	}
	n.loose = true
	return n
}

// matches wants its pattern at compile time. ClickHouse's dot matches a newline, so ours does.
func (c *compiler) matches(at ast.Expr, a, pattern *node) *node {
	if pattern.con == nil {
		return c.fail(at, "a pattern must be a literal", "")
	}
	text := pattern.con.Dict.Strings[0]
	re, err := regexp.Compile("(?s)" + text)
	if err != nil {
		return c.fail(at, "bad pattern: "+strings.TrimPrefix(err.Error(), "error parsing regexp: "), "patterns are RE2's: no back-references, no look-around")
	}
	n := strict(schemas.Bool, false, "match("+a.sql+", "+pattern.sql+")", perString(re.MatchString), a)
	n.loose = true
	return n
}

// ascii changes the case of the ASCII letters from lo to hi.
func ascii(s string, lo, hi byte) string {
	b := []byte(s)
	for i, ch := range b {
		if lo <= ch && ch <= hi {
			b[i] ^= 0x20
		}
	}
	return string(b)
}

func concat(a, b *node) *node {
	return strict(schemas.String, false, "concat("+a.sql+", "+b.sql+")", concatKernel(), a, b)
}

// concatKernel joins strings once per pair of entries: for all pairs, kept as long as both
// dictionaries stay, where those are not more than the rows; else for the pairs that occur.
func concatKernel() kernel {
	var products perPair[*column.Dict]
	return func(n int, args []operand) column.Vector {
		a, b := args[0], args[1]
		out := column.Vector{Codes: make([]int32, n), Valid: both(n, a, b)}
		x, y := a.Dict.Strings, b.Dict.Strings
		if e := products.last.Load(); len(x)*len(y) <= n || e != nil && e.a == a.Dict && e.b == b.Dict {
			out.Dict = products.get(a.Dict, b.Dict, func() *column.Dict {
				all := make([]string, 0, len(x)*len(y))
				for _, s := range x {
					for _, t := range y {
						all = append(all, s+t)
					}
				}
				return &column.Dict{Strings: all}
			})
			for i := range out.Codes {
				out.Codes[i] = a.Codes[i*a.step]*int32(len(y)) + b.Codes[i*b.step]
			}
			return out
		}
		out.Dict = &column.Dict{}
		seen := make(map[[2]int32]int32)
		for i := range out.Codes {
			if !a.valid(i) || !b.valid(i) {
				continue
			}
			pair := [2]int32{a.Codes[i*a.step], b.Codes[i*b.step]}
			code, ok := seen[pair]
			if !ok {
				code = int32(len(out.Dict.Strings))
				seen[pair] = code
				out.Dict.Strings = append(out.Dict.Strings, x[pair[0]]+y[pair[1]])
			}
			out.Codes[i] = code
		}
		return out
	}
}
