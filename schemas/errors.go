package schemas

import (
	"fmt"
	"strings"
)

// An Error is one mistake in a definition.
type Error struct {
	Pos   Pos
	Msg   string // what is wrong
	Line  string // the source line, or the line of the expression; may be empty
	Caret int    // column in Line that the mistake is at, from 1; 0: Pos.Col
	Hint  string // what to do about it; may be empty
}

// Error renders `file:line:col: message`, the line with a caret below the place, the hint.
func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Pos.File != "" && e.Pos.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", e.Pos.File, e.Pos.Line, e.Pos.Col)
	case e.Pos.File != "":
		fmt.Fprintf(&b, "%s: ", e.Pos.File)
	case e.Pos.Line > 0:
		fmt.Fprintf(&b, "%d:%d: ", e.Pos.Line, e.Pos.Col)
	}
	b.WriteString(e.Msg)
	if e.Line != "" {
		fmt.Fprintf(&b, "\n    %s\n    %s^", e.Line, pad(e.Line, e.caret()))
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "\n  hint: %s", e.Hint)
	}
	return b.String()
}

func (e *Error) caret() int {
	if e.Caret > 0 {
		return e.Caret
	}
	return e.Pos.Col
}

// pad is the white space before the caret: tabs stay tabs, so that it stands right.
func pad(line string, caret int) string {
	var b strings.Builder
	at := 1
	for _, r := range line {
		if at >= caret {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
		at++
	}
	return b.String()
}

// Errors is every mistake that was found, in the order of files and lines.
type Errors []*Error

// Error renders all of them, a blank line between.
func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i, one := range e {
		parts[i] = one.Error()
	}
	return strings.Join(parts, "\n\n")
}

// Unwrap returns the single mistakes.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// Nearest returns the candidate that word is most likely a misspelling of, or "".
func Nearest(word string, candidates []string) string {
	best, at := "", len([]rune(word))/3+2 // more edits than that is another word
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance in code points.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			cost := diagonal
			if x[i] != y[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(y)]
}
