package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The txns in which a table remembers what it had and was given up.
const (
	importPrefix = "import/" // before a source's hash. 1: the import is there; 0 or less: so many of its events, negated, were given up
	lossPrefix   = "lost/"   // before a date: so many events that came through the log were given up, all repairs together
)

// A Loss is what repairs have given up of a table, and nothing has brought back since.
type Loss struct {
	Type   string
	Events int64  // 0: not known
	Date   string // of events that came through the log; empty: of an import
	Import string // SHA-256 of the source whose import is to be made again
	Range  string // of the import, as from..to; empty: all of the source
}

// String says it in a line.
func (l Loss) String() string {
	if l.Import == "" {
		return fmt.Sprintf("%s: %d events of %s", l.Type, l.Events, l.Date)
	}
	text := fmt.Sprintf("%s: an import of the source with SHA-256 %s", l.Type, l.Import)
	if l.Events > 0 {
		text = fmt.Sprintf("%s: %d events of the import of the source with SHA-256 %s", l.Type, l.Events, l.Import)
	}
	if l.Range != "" {
		text += " (" + l.Range + ")"
	}
	return text
}

// lossNotes are the txns that say what a commit gives up: the import of that name, or else events by date.
func (t *Table) lossNotes(source string, lost map[int32]int64) (notes []txn) {
	events := int64(0)
	for date, n := range lost {
		if events += n; source == "" {
			app := lossPrefix + formatDate(date)
			notes = append(notes, txn{AppID: app, Version: t.state.txns[app] + n})
		}
	}
	if source != "" {
		notes = append(notes, txn{AppID: source, Version: -events})
	}
	return notes
}

// losses are what was given up of a table, by date and source.
func (t *Table) losses() (out []Loss) {
	for app, n := range t.state.txns {
		if date, ok := strings.CutPrefix(app, lossPrefix); ok {
			out = append(out, Loss{Type: t.event.Name, Events: n, Date: date})
		}
		if source, ok := strings.CutPrefix(app, importPrefix); ok && n <= 0 {
			sum, within, _ := strings.Cut(source, "/")
			out = append(out, Loss{Type: t.event.Name, Events: -n, Import: sum, Range: within})
		}
	}
	slices.SortFunc(out, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.Import, b.Import), cmp.Compare(a.Range, b.Range))
	})
	return out
}
