package api

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"watershed/schemas"
)

// queryParameters are the names that a typed query takes.
func queryParameters() []string {
	return []string{"dimensions", "measures", "grain", "from", "to", "filter", "null", "order", "limit", "format", "timeout", "rows", "min_position", "max_wait"}
}

// selection builds the SQL of a typed query. Everything that it puts into the SQL's text comes from the
// plan or is written here; what the client wrote becomes a parameter's value.
type selection struct {
	view       View
	dimensions []Dimension
	measures   []Measure
	grain      time.Duration
	where      []string
	parameters map[string]string
}

// compile turns the query parameters of a typed query into SQL and values.
func compile(v View, query url.Values) (sql string, parameters map[string]string, err error) {
	if err := only(query, queryParameters()...); err != nil {
		return "", nil, err
	}
	for _, name := range []string{"dimensions", "measures", "grain", "from", "to", "order", "limit"} {
		if _, err := once(query, name); err != nil {
			return "", nil, err
		}
	}
	s := &selection{view: v, parameters: map[string]string{}}
	for _, step := range []func(url.Values) error{s.choose, s.setGrain, s.setRange, s.setFilters} {
		if err := step(query); err != nil {
			return "", nil, err
		}
	}
	order, err := s.order(query.Get("order"))
	if err != nil {
		return "", nil, err
	}
	limit, err := s.limit(query)
	if err != nil {
		return "", nil, err
	}
	return s.sql(order, limit), s.parameters, nil
}

func (s *selection) choose(query url.Values) error {
	var err error
	s.dimensions, err = chosen(query, "dimensions", s.view.Dimensions, func(d Dimension) string { return d.Name })
	if err != nil {
		return err
	}
	s.measures, err = chosen(query, "measures", s.view.Measures, func(m Measure) string { return m.Name })
	if err != nil {
		return err
	}
	if len(s.dimensions)+len(s.measures) == 0 {
		return badParameter("measures", "neither dimensions nor measures are asked for")
	}
	return nil
}

// chosen is the part of all that the parameter lists, in its order; all if it is not given.
func chosen[T any](query url.Values, parameter string, all []T, name func(T) string) ([]T, error) {
	if !query.Has(parameter) {
		return all, nil
	}
	var some []T
	seen := map[string]bool{}
	for _, want := range list(query.Get(parameter)) {
		i := slices.IndexFunc(all, func(x T) bool { return name(x) == want })
		if i < 0 {
			return nil, badParameter(parameter, "the view has no %q: there are %s", want, names(all, name))
		}
		if seen[want] {
			return nil, badParameter(parameter, "%q is listed twice", want)
		}
		seen[want] = true
		some = append(some, all[i])
	}
	return some, nil
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func names[T any](all []T, name func(T) string) string {
	if len(all) == 0 {
		return "none"
	}
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = name(x)
	}
	return strings.Join(out, ", ")
}

func (s *selection) setGrain(query url.Values) error {
	text := query.Get("grain")
	if text == "" {
		return nil
	}
	grain, err := parseGrain(text)
	if err != nil {
		return badParameter("grain", "%q: want a duration like 1d, 6h or 15m", text)
	}
	t := s.view.time()
	if t == nil || t.width() == 0 {
		return badParameter("grain", "the view has no time bucket as a dimension")
	}
	if !slices.ContainsFunc(s.dimensions, func(d Dimension) bool { return d.Name == t.Name }) {
		return badParameter("grain", "the time dimension %s is not among the dimensions asked for", t.Name)
	}
	if grain%t.width() != 0 {
		return badParameter("grain", "%s is no multiple of the width of %s, which is %s", grain, t.Name, t.width())
	}
	s.grain = grain
	return nil
}

func (s *selection) setRange(query url.Values) error {
	var bounds [2]time.Time
	for i, name := range []string{"from", "to"} {
		text := query.Get(name)
		if text == "" {
			continue
		}
		t := s.view.time()
		if t == nil {
			return badParameter(name, "the view has no time among its dimensions")
		}
		at, err := parseTime(text)
		if err != nil {
			return badParameter(name, "%w", err)
		}
		bounds[i] = at
		column, operator, parameter := column(t.Name), []string{">=", "<"}[i], name
		if t.Type.Kind == schemas.Date {
			// A day begins at its midnight: those from an instant on are those from the next midnight on.
			days := -floorDiv(-at.UnixMicro(), day.Microseconds())
			s.parameters[parameter] = strconv.FormatInt(days, 10)
			s.where = append(s.where, fmt.Sprintf("toInt32(%s) %s {%s:Int64}", column, operator, parameter))
			continue
		}
		s.parameters[parameter] = strconv.FormatInt(at.UnixMicro(), 10)
		s.where = append(s.where, fmt.Sprintf("%s %s fromUnixTimestamp64Micro({%s:Int64}, 'UTC')", column, operator, parameter))
	}
	if !bounds[0].IsZero() && !bounds[1].IsZero() && !bounds[0].Before(bounds[1]) {
		return badParameter("to", "the range is empty: to must be later than from")
	}
	return nil
}

// setFilters turns filter and null into conditions: any of a dimension's values, all of the dimensions.
func (s *selection) setFilters(query url.Values) error {
	conditions := map[string][]string{} // by dimension
	for i, text := range query["filter"] {
		name, value, ok := strings.Cut(text, ":")
		if !ok {
			return badParameter("filter", "%q: want dimension:value", text)
		}
		d, err := s.dimension("filter", name)
		if err != nil {
			return err
		}
		parameter := "filter" + strconv.Itoa(i)
		expression, bound, err := bind(d.Type, parameter, value)
		if err != nil {
			return badParameter("filter", "%s: %w", name, err)
		}
		s.parameters[parameter] = bound
		conditions[name] = append(conditions[name], column(name)+" = "+expression)
	}
	for _, name := range query["null"] {
		d, err := s.dimension("null", name)
		if err != nil {
			return err
		}
		if !d.Nullable {
			return badParameter("null", "%s always has a value", name)
		}
		conditions[name] = append(conditions[name], column(name)+" IS NULL")
	}
	for _, d := range s.view.Dimensions {
		if any := conditions[d.Name]; len(any) > 0 {
			s.where = append(s.where, "("+strings.Join(any, " OR ")+")")
		}
	}
	return nil
}

func (s *selection) dimension(parameter, name string) (Dimension, error) {
	for _, d := range s.view.Dimensions {
		if d.Name == name {
			return d, nil
		}
	}
	return Dimension{}, badParameter(parameter, "the view has no dimension %q: there are %s", name,
		names(s.view.Dimensions, func(d Dimension) string { return d.Name }))
}

// order is the ORDER BY list: what is asked for, then the remaining dimensions.
func (s *selection) order(text string) (string, error) {
	var keys []string
	seen := map[string]bool{}
	for _, item := range list(text) {
		name, descending := strings.CutPrefix(item, "-")
		known := slices.ContainsFunc(s.dimensions, func(d Dimension) bool { return d.Name == name }) ||
			slices.ContainsFunc(s.measures, func(m Measure) bool { return m.Name == name })
		if !known {
			return "", badParameter("order", "%q is not among the dimensions and measures asked for", name)
		}
		if seen[name] {
			return "", badParameter("order", "%q is listed twice", name)
		}
		seen[name] = true
		if descending {
			keys = append(keys, quote(name)+" DESC")
		} else {
			keys = append(keys, quote(name))
		}
	}
	for _, d := range s.dimensions {
		if !seen[d.Name] {
			keys = append(keys, quote(d.Name))
		}
	}
	return strings.Join(keys, ", "), nil
}

func (s *selection) limit(query url.Values) (string, error) {
	text := query.Get("limit")
	if text == "" {
		return "", nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 {
		return "", badParameter("limit", "%q: want a number of rows, at least 1", text)
	}
	s.parameters["limit"] = strconv.FormatUint(n, 10)
	return "{limit:UInt64}", nil
}

// sql puts the statement together. The names of the answer are given outside, so that a name like that of
// a state column means the column within.
func (s *selection) sql(order, limit string) string {
	var inner, outer, group []string
	add := func(expression, name string) {
		alias := "_c" + strconv.Itoa(len(inner))
		inner = append(inner, expression+" AS "+alias)
		outer = append(outer, alias+" AS "+quote(name))
	}
	for _, d := range s.dimensions {
		group = append(group, "_c"+strconv.Itoa(len(inner)))
		add(s.key(d), d.Name)
	}
	for _, m := range s.measures {
		states := make([]string, len(m.Columns))
		for i, c := range m.Columns {
			states[i] = column(c)
		}
		add(m.Func.FinishSQL(states), m.Name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT %s FROM (SELECT %s FROM %s AS s", strings.Join(outer, ", "), strings.Join(inner, ", "), quote(s.view.Name()+"_states"))
	if len(s.where) > 0 {
		b.WriteString(" WHERE " + strings.Join(s.where, " AND "))
	}
	if len(group) > 0 {
		b.WriteString(" GROUP BY " + strings.Join(group, ", "))
	}
	b.WriteString(")")
	if order != "" {
		b.WriteString(" ORDER BY " + order)
	}
	if limit != "" {
		b.WriteString(" LIMIT " + limit)
	}
	return b.String()
}

// key is what rows are grouped by: the dimension, or the bucket of the grain that it falls into.
func (s *selection) key(d Dimension) string {
	c := column(d.Name)
	if t := s.view.time(); s.grain == 0 || d.Name != t.Name {
		return c
	}
	if d.Type.Kind == schemas.Date {
		days := int64(s.grain / day)
		return fmt.Sprintf("toDate32('1970-01-01') + toInt32(toInt32(%s) - positiveModulo(toInt32(%s), %d))", c, c, days)
	}
	µs := s.grain.Microseconds()
	return fmt.Sprintf("fromUnixTimestamp64Micro(toUnixTimestamp64Micro(%s) - positiveModulo(toUnixTimestamp64Micro(%s), %d), 'UTC')", c, c, µs)
}

func column(name string) string { return "s." + quote(name) }

// quote quotes an identifier of a plan. Names match ^[A-Za-z_][A-Za-z0-9_]*$, so there is nothing to escape.
func quote(name string) string { return "`" + name + "`" }
