package schemas

import (
	"strings"

	"github.com/goccy/go-yaml/ast"
)

func (d *document) event(entries []entry) {
	ev := &Event{}
	var id, time Expression
	for _, e := range entries {
		switch e.key {
		case "event":
			x, _ := d.text(e, "the event's name")
			ev.Name, ev.Pos = x.Text, x.Pos
			if x.Text != "" {
				d.name(x.Pos, "an event", x.Text)
			} else {
				ev.Pos = e.pos
			}
		case "id":
			id, _ = d.text(e, "id")
		case "time":
			time, _ = d.text(e, "time")
		case "fields":
			d.fields(ev, e)
		case "unknown_fields":
			d.strictness(ev, e)
		default:
			d.unknownKey(e, "event", "id", "time", "fields", "unknown_fields")
		}
	}
	d.missing(ev.Pos, "the event", entries, "id", "time", "fields")
	ev.ID, ev.Time = id.Text, time.Text
	d.role(ev, id, "id", "a string or an int64", String, Int64)
	d.role(ev, time, "time", "a timestamp", Timestamp)
	d.set.Events = append(d.set.Events, ev)
}

// strictness reads what becomes of an event with fields that are not declared.
func (d *document) strictness(ev *Event, e entry) {
	x, ok := d.text(e, "unknown_fields")
	switch {
	case !ok:
	case x.Text == "ignore":
		ev.IgnoreUnknown = true
	case x.Text != "error":
		d.fail(x.Pos, suggest(x.Text, []string{"error", "ignore"}, "it may be "), "unknown_fields is either error or ignore, not %s", x.Text)
	}
}

// role checks the field that is an event's id or time.
func (d *document) role(ev *Event, x Expression, role, want string, kinds ...Kind) {
	if x.Text == "" || len(ev.Fields) == 0 {
		return
	}
	f := ev.Field(x.Text)
	if f == nil {
		var names []string
		for _, f := range ev.Fields {
			names = append(names, f.Name)
		}
		d.fail(x.Pos, suggest(x.Text, names, "the fields are "), "%s names no declared field: %s", role, x.Text)
		return
	}
	ok := f.Type.Kind == 0 // its type was refused already
	for _, k := range kinds {
		ok = ok || f.Type.Kind == k
	}
	switch {
	case !ok:
		d.fail(x.Pos, "", "the field %s cannot be the %s: it is %s, not %s", x.Text, role, f.Type, want)
	case f.Optional:
		d.fail(x.Pos, "every event has its "+role+": drop `optional` from the field", "the field %s cannot be the %s: it is optional", x.Text, role)
	}
}

func (d *document) fields(ev *Event, e entry) {
	if e.value == nil || e.value.Type() == ast.NullType {
		d.fail(e.pos, "declare at least the id and the time", "the event has no fields")
		return
	}
	entries, ok := d.mapping(e.value, "fields")
	if !ok {
		return
	}
	names := namespace{}
	for _, e := range entries {
		d.name(e.pos, "a field", e.key)
		d.unique(names, e.pos, "field", e.key)
		ev.Fields = append(ev.Fields, d.field(e))
	}
}

// field reads `name: type` or `name: {type: …, optional: …}`.
func (d *document) field(e entry) Field {
	f := Field{Name: e.key, Pos: e.pos}
	switch e.value.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		if x, ok := d.text(e, "the type of "+e.key); ok {
			f.Type = d.fieldType(x)
		}
		return f
	}
	entries, _ := d.mapping(e.value, "field "+e.key)
	for _, sub := range entries {
		switch sub.key {
		case "type":
			if x, ok := d.text(sub, "the type of "+e.key); ok {
				f.Type = d.fieldType(x)
			}
		case "optional":
			b, ok := sub.value.(*ast.BoolNode)
			if !ok {
				d.fail(sub.pos, "", "optional must be true or false, not %s", kindOf(sub.value))
				continue
			}
			f.Optional = b.Value
		default:
			d.unknownKey(sub, "type", "optional")
		}
	}
	d.missing(e.pos, "the field", entries, "type")
	return f
}

func (d *document) fieldType(x Expression) Type {
	t, err := ParseType(x.Text)
	if err != nil {
		hint := ""
		var names []string
		for k := String; k <= Date; k++ {
			if k != Decimal {
				names = append(names, kinds[k].name)
			}
		}
		if near := Nearest(strings.ToLower(x.Text), names); near != "" {
			hint = "did you mean " + near + "?"
		}
		d.fail(x.Pos, hint, "%s", err)
	}
	return t
}

func (d *document) view(entries []entry) {
	v := &View{}
	names := namespace{} // dimensions and measures are columns of one table
	for _, e := range entries {
		switch e.key {
		case "view":
			x, _ := d.text(e, "the view's name")
			v.Name, v.Pos = x.Text, x.Pos
			if x.Text != "" {
				d.name(x.Pos, "a view", x.Text)
			} else {
				v.Pos = e.pos
			}
		case "from":
			x, _ := d.text(e, "from")
			v.From, d.from[v] = x.Text, x.Pos
		case "where":
			v.Where, _ = d.text(e, "where")
		case "dimensions":
			v.Dimensions = d.definitions(e, "dimension", names)
		case "measures":
			if v.Measures = d.definitions(e, "measure", names); e.value == nil || e.value.Type() == ast.NullType {
				d.fail(e.pos, "for example `events: count()`", "the view has no measures")
			}
		default:
			d.unknownKey(e, "view", "from", "where", "dimensions", "measures")
		}
	}
	d.missing(v.Pos, "the view", entries, "from", "measures")
	d.set.Views = append(d.set.Views, v)
}

// definitions reads the named expressions of a view.
func (d *document) definitions(e entry, what string, names namespace) []Definition {
	out := []Definition{}
	if e.value == nil || e.value.Type() == ast.NullType {
		return out
	}
	entries, _ := d.mapping(e.value, e.key)
	for _, sub := range entries {
		d.name(sub.pos, "a "+what, sub.key)
		d.unique(names, sub.pos, what, sub.key)
		x, ok := d.text(sub, "the "+what+" "+sub.key)
		if ok {
			out = append(out, Definition{Name: sub.key, Expression: x, Pos: sub.pos})
		}
	}
	return out
}
