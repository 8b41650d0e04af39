// Package schemas holds the definitions of events and views, and the words that all layers
// share: position, cut, chunk, slice, build. It parses definition files strictly, says where
// each mistake is, and writes definitions in one canonical JSON form, which travels in the
// cuts of the log and is what plans are hashed over.
package schemas

import (
	"github.com/apache/arrow/go/v15/arrow"
)

// The columns that Watershed adds to every event, in the log's records and in history.
const (
	SeqColumn = "_seq" // int64: stream sequence of the message that brought the event; 0 for imports
	RowColumn = "_row" // int32: the event's row in its message, or in the imported file
)

// A Pos is a place in a definition file. The zero Pos is "no file": definitions that came
// with a cut.
type Pos struct {
	File string
	Line int // from 1
	Col  int // from 1, in code points
}

// An Event is the declaration of one type of event.
type Event struct {
	Name   string  `json:"event"`
	ID     string  `json:"id"`   // the field that identifies an event; a string or int64
	Time   string  `json:"time"` // the field that is the event time; a timestamp
	Fields []Field `json:"fields"`

	// IgnoreUnknown means that fields which are not declared are passed by; else an event that has
	// one does not fit.
	IgnoreUnknown bool `json:"ignoreUnknown,omitempty"`

	Pos Pos `json:"-"`
}

// A Field is one declared field of an event.
type Field struct {
	Name     string `json:"name"`
	Type     Type   `json:"type"`
	Optional bool   `json:"optional,omitempty"` // may be absent or null
	Pos      Pos    `json:"-"`
}

// Field returns the declared field of that name, or nil.
func (e *Event) Field(name string) *Field {
	for i := range e.Fields {
		if e.Fields[i].Name == name {
			return &e.Fields[i]
		}
	}
	return nil
}

// ArrowSchema is the schema of a record of events: the declared fields in their order, then
// _seq (int64) and _row (int32).
func (e *Event) ArrowSchema() *arrow.Schema {
	fields := make([]arrow.Field, 0, len(e.Fields)+2)
	for _, f := range e.Fields {
		fields = append(fields, arrow.Field{Name: f.Name, Type: f.Type.Arrow(), Nullable: f.Optional})
	}
	fields = append(fields,
		arrow.Field{Name: SeqColumn, Type: arrow.PrimitiveTypes.Int64},
		arrow.Field{Name: RowColumn, Type: arrow.PrimitiveTypes.Int32})
	return arrow.NewSchema(fields, nil)
}

// A View is the declaration of one aggregate over the events of one type.
type View struct {
	Name       string       `json:"view"`
	From       string       `json:"from"`           // the event type
	Where      Expression   `json:"where,omitzero"` // a condition; empty: every event
	Dimensions []Definition `json:"dimensions"`     // what groups are made by, in key order
	Measures   []Definition `json:"measures"`       // what is measured of each group
	Pos        Pos          `json:"-"`
}

// A Definition names an expression.
type Definition struct {
	Name       string     `json:"name"`
	Expression Expression `json:"is"`
	Pos        Pos        `json:"-"` // of the name
}

// An Expression is the text of a CEL expression and where it was written.
type Expression struct {
	Text string
	Pos  Pos // of the text's first character
}

// IsZero reports whether there is no expression.
func (x Expression) IsZero() bool { return x.Text == "" }

// MarshalText writes the expression's text.
func (x Expression) MarshalText() ([]byte, error) { return []byte(x.Text), nil }

// UnmarshalText reads an expression's text; its place is not known.
func (x *Expression) UnmarshalText(b []byte) error {
	*x = Expression{Text: string(b)}
	return nil
}

// A Set is all the definitions that hold at one time. Its JSON form is canonical: equal sets
// have equal bytes (events and views sorted by name, fields, dimensions and measures in the
// order of their declaration).
type Set struct {
	Events []*Event `json:"events"`
	Views  []*View  `json:"views"`
}

// Event returns the event type of that name, or nil.
func (s *Set) Event(name string) *Event {
	for _, e := range s.Events {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// View returns the view of that name, or nil.
func (s *Set) View(name string) *View {
	for _, v := range s.Views {
		if v.Name == name {
			return v
		}
	}
	return nil
}
