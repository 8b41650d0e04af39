package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/view"
)

// worstGroups is how many drifted groups an audit names.
const worstGroups = 10

// Audit holds the new slices of a plan against the old ones plus the speed epochs and the
// imports, group by group. Slices that are on both sides are left out: what they add is equal.
//
// A group's measure is equal, explained or drifted:
//
//   - An additive measure may exceed the batch's by up to what was removed in its group as
//     duplicates: the speed layer, whose memory is bounded, may have counted them. Less than
//     the batch's, or more than that, is drift.
//   - Any other measure must be equal in a group where nothing was removed; where something
//     was, a difference is explained. (How far a duplicate moves a maximum or a quantile cannot
//     be told from states; the group's counts still bound how many there were.)
//   - Sums and means of float64 are equal within agg.Tolerance of the group's Σ|x| (of a mean, over its n),
//     which their states carry: orders of addition cannot differ by more, and so an error of a sum escapes
//     if it is smaller than a billionth of Σ|x|. A sum that has overflowed compares with nothing.
//
// A group is as bad as its worst measure.
//
// What explains is counted by the view's first count(): by how much it exceeded the batch's, where
// that is explained. Of a group that has duplicates of both causes, those that imports made are
// taken first; how many there are of these is known, as imports are on the old side whole.
func (db *DB) Audit(ctx context.Context, p *view.Plan, spec schemas.AuditSpec) (schemas.Audit, error) {
	l := layoutOf(p)
	a := schemas.Audit{View: l.view, Plan: l.hash, Build: spec.Build, Baseline: spec.Baseline, Imports: spec.Imported, Conflicts: spec.Conflicts, First: spec.First}
	fail := func(err error) (schemas.Audit, error) {
		return schemas.Audit{}, fmt.Errorf("audit view %s: %w", l.view, err)
	}
	compared := ""
	sides, err := db.sidesSQL(ctx, l, spec)
	switch {
	case err != nil:
		return fail(err)
	case len(sides) == 0: // nothing was shown, and nothing came: without dimensions that is a group still
		if len(l.dims) == 0 {
			a.Groups, a.Equal = 1, 1
		}
	default:
		compared = comparisonSQL(l, sides)
		if err := db.countVerdicts(ctx, &a, compared); err != nil {
			return fail(err)
		}
	}
	if counter(p) == nil {
		a.LateDuplicates, a.ImportDuplicates = spec.LateEvents, spec.AgainEvents
		a.AtMost = spec.LateEvents+spec.AgainEvents > 0
	}
	if a.Drifted == 0 {
		return a, nil
	}
	a.Worst, err = rows[schemas.AuditGroup](ctx, db.client, fmt.Sprintf(
		"SELECT _group AS Group, m.1 AS Measure, m.2 AS Baseline, m.3 AS Batch, m.5 AS Drift FROM (%s) ARRAY JOIN _measures AS m WHERE m.4 = 2 ORDER BY Drift DESC, toString(_group), Measure LIMIT %d",
		compared, worstGroups))
	if err != nil {
		return fail(err)
	}
	return a, nil
}

// countVerdicts fills an audit with what a comparison finds.
func (db *DB) countVerdicts(ctx context.Context, a *schemas.Audit, compared string) error {
	got, err := rows[struct {
		Groups    uint64  `ch:"groups"`
		Equal     uint64  `ch:"equal"`
		Explained uint64  `ch:"explained"`
		Drifted   uint64  `ch:"drifted"`
		Late      uint64  `ch:"late"`
		Again     uint64  `ch:"again"`
		Largest   float64 `ch:"largest"`
		Share     float64 `ch:"share"`
	}](ctx, db.client, "SELECT count() AS groups, countIf(_verdict = 0) AS equal, countIf(_verdict = 1) AS explained, countIf(_verdict = 2) AS drifted, "+
		"sum(_twice.1) AS late, sum(_twice.2) AS again, max(_worst) AS largest, max(_share) AS share FROM ("+
		fmt.Sprintf("SELECT arrayMax(arrayMap(m -> m.4, _measures)) AS _verdict, arrayMax(arrayMap(m -> if(m.4 = 2, m.5, 0.), _measures)) AS _worst, "+
			"arrayMax(arrayMap(m -> if(m.4 = 2, m.6, 0.), _measures)) AS _share, _twice FROM (%s)", compared)+")")
	if err != nil || len(got) != 1 {
		return err
	}
	g := got[0]
	a.Groups, a.Equal, a.Explained, a.Drifted, a.Largest, a.LargestShare = g.Groups, g.Equal, g.Explained, g.Drifted, g.Largest, g.Share
	a.LateDuplicates, a.ImportDuplicates = g.Late, g.Again
	return nil
}

// counter is the view's first measure that counts every event; nil if it has none.
func counter(p *view.Plan) *view.Measure {
	for i, m := range p.Measures {
		if m.Func.Additive() && m.Arg == nil {
			return &p.Measures[i]
		}
	}
	return nil
}

// The sides of a comparison.
const (
	sideBaseline = 0
	sideBatch    = 1
	sideLate     = 2 // removed duplicates, by why they may be on the old side
	sideAgain    = 3
)

// sidesSQL gives the states that are to be compared, each source with its side. There is none where
// nothing is to be compared: the speed layer is asked for that alone.
func (db *DB) sidesSQL(ctx context.Context, l *layout, spec schemas.AuditSpec) ([]string, error) {
	shared := make(map[uint64]bool)
	for _, id := range spec.New {
		shared[id] = slices.Contains(spec.Old, id)
	}
	without := func(ids []uint64) []uint64 {
		return slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool { return shared[id] })
	}
	var sides []string
	add := func(side int, table, where string) {
		sides = append(sides, fmt.Sprintf("SELECT %s, %d AS _side FROM %s WHERE %s", names("", l.columns()), side, db.name(table), where))
	}
	for _, of := range []struct {
		side int
		ids  []uint64
	}{{sideBaseline, without(spec.Old)}, {sideBaseline, spec.Imports}, {sideBatch, without(spec.New)}, {sideLate, spec.Late}, {sideAgain, spec.Again}} {
		if len(of.ids) > 0 {
			add(of.side, l.batch(), "_slice IN ("+list(of.ids)+")")
		}
	}
	epochs := fmt.Sprintf("_epoch >= %d AND _epoch < %d", spec.From, spec.To)
	if len(sides) == 0 {
		folded, err := rows[struct {
			One uint8 `ch:"1"`
		}](ctx, db.client, fmt.Sprintf("SELECT 1 FROM %s WHERE %s LIMIT 1", db.name(l.speed()), epochs))
		if err != nil || len(folded) == 0 {
			return nil, err
		}
	}
	add(sideBaseline, l.speed(), epochs)
	return sides, nil
}

// comparisonSQL gives a row per group: the dimensions as a map of text, and per measure a
// tuple of name, baseline value, batch value, verdict (0 equal, 1 explained, 2 drift), drift, and
// its share of the larger value; and how many events the baseline counted too often, by cause.
func comparisonSQL(l *layout, sides []string) string {
	dims := ""
	if len(l.dims) > 0 {
		dims = names("_s.", l.dims) + ", "
	}
	// Within: per group and side the finished values. Above: the sides of a group in one row; a
	// side without rows has the value of nothing.
	within := l.outputs("_s.", func(m view.Measure, cols []string) []string {
		return append(finished(m, cols), scaleSQL(m, cols)+" AS "+quote("_scale_"+m.Name))
	})
	var measures []string
	for _, m := range l.plan.Measures {
		measures = append(measures, verdictSQL(m, counter(l.plan)))
	}
	var group []string
	for _, d := range l.dims {
		group = append(group, literal(d.name), "ifNull(toString("+quote(d.name)+"), 'null')")
	}
	grouping := " GROUP BY " + dims + "_s._side"
	having := "HAVING min(_side) < " + fmt.Sprint(sideLate)
	groupMap := "CAST(map(), 'Map(String, String)')"
	if len(group) > 0 {
		groupMap = "map(" + strings.Join(group, ", ") + ")"
	}
	return fmt.Sprintf("SELECT %s AS _group, [%s] AS _measures, %s AS _twice FROM (SELECT %s, _s._side AS _side FROM (%s) AS _s%s)%s %s",
		groupMap, strings.Join(measures, ", "), twiceSQL(counter(l.plan)), within, strings.Join(sides, " UNION ALL "), grouping, l.groupBy(""), having)
}

// scaleSQL is what differences of a float sum are held against; 0 where equal means equal.
func scaleSQL(m view.Measure, cols []string) string {
	if f, ok := m.Func.(agg.Rounded); ok {
		if scale := f.MagnitudesSQL(cols); scale != "" {
			return scale
		}
	}
	return "0."
}

// on is a measure's value on one side of a group; of a count, 0 if the side has nothing.
func on(side int, m view.Measure) string {
	return fmt.Sprintf("anyIf(%s, _side = %d)", quote(m.Name), side)
}

// surplusSQL reports whether the baseline counted more than the batch, but not by more than the
// duplicates that were removed.
func surplusSQL(m view.Measure) string {
	return fmt.Sprintf("%[1]s > %[2]s AND %[1]s - %[2]s <= %[3]s + %[4]s", on(sideBaseline, m), on(sideBatch, m), on(sideLate, m), on(sideAgain, m))
}

// twiceSQL is how many events of a group the baseline counted too often, by cause.
func twiceSQL(c *view.Measure) string {
	if c == nil {
		return "(toUInt64(0), toUInt64(0))"
	}
	surplus := fmt.Sprintf("if(%s, toUInt64(%s - %s), toUInt64(0))", surplusSQL(*c), on(sideBaseline, *c), on(sideBatch, *c))
	again := fmt.Sprintf("least(%s, %s)", surplus, on(sideAgain, *c))
	return fmt.Sprintf("(toUInt64(%s - %s), toUInt64(%s))", surplus, again, again)
}

// verdictSQL compares a measure of one group. Aliases would be shared by all measures, so that
// the expressions are written out.
//
// Beside a count of all events, whatever differs is explained only where that exceeds the batch's:
// where it does not, both sides have the same events.
func verdictSQL(m view.Measure, c *view.Measure) string {
	a, b := on(sideBaseline, m), on(sideBatch, m)
	same := fmt.Sprintf("(isNull(%[1]s) AND isNull(%[2]s)) OR ifNull(%[1]s = %[2]s, false)", a, b)
	drift, share := "1.", "1."
	if isNumber(m.Func.ResultType()) {
		// Infinities differ by what is not a number: not more than the tolerance, which is infinite then.
		same += fmt.Sprintf(" OR ifNull(NOT abs(toFloat64(%s) - toFloat64(%s)) > %g * max(%s), false) AND max(%[4]s) > 0",
			a, b, agg.Tolerance, quote("_scale_"+m.Name))
		drift = fmt.Sprintf("abs(ifNull(toFloat64(%s), 0.) - ifNull(toFloat64(%s), 0.))", a, b)
		larger := fmt.Sprintf("greatest(abs(ifNull(toFloat64(%s), 0.)), abs(ifNull(toFloat64(%s), 0.)))", a, b)
		share = fmt.Sprintf("if(%[1]s > 0, %[2]s / %[1]s, 0.)", larger, drift)
	}
	explained := fmt.Sprintf("countIf(_side >= %d) > 0", sideLate)
	switch {
	case m.Func.Additive():
		explained = surplusSQL(m)
	case c != nil:
		explained = surplusSQL(*c)
	}
	return fmt.Sprintf("(%s, ifNull(toString(%s), 'null'), ifNull(toString(%s), 'null'), multiIf(%s, 0, %s, 1, 2), %s, %s)",
		literal(m.Name), a, b, same, explained, drift, share)
}

// isNumber reports whether values of a type can be subtracted as float64.
func isNumber(typ string) bool {
	typ = strings.TrimPrefix(typ, "Nullable(")
	for _, p := range []string{"Int", "UInt", "Float", "Decimal"} {
		if strings.HasPrefix(typ, p) {
			return true
		}
	}
	return false
}

// SaveAudits stores what audits found, in one insert: in columns for whoever asks by SQL, and the
// whole as JSON.
func (db *DB) SaveAudits(ctx context.Context, term uint64, audits []schemas.Audit) error {
	if len(audits) == 0 {
		return nil
	}
	b := &block{rows: len(audits)}
	numbers := make(map[string][]uint64)
	texts := make(map[string][]string)
	var largest, share []float64
	var gated []bool
	for _, a := range audits {
		text, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("save audit of view %s: %w", a.View, err)
		}
		for name, n := range map[string]uint64{
			"build": a.Build, "baseline": a.Baseline, "groups": a.Groups, "equal": a.Equal, "explained": a.Explained, "drifted": a.Drifted,
			"late_duplicates": a.LateDuplicates, "import_duplicates": a.ImportDuplicates, "imports": a.Imports, "conflicts": a.Conflicts,
		} {
			numbers[name] = append(numbers[name], n)
		}
		for name, s := range map[string]string{"plan": a.Plan, "view": a.View, "skipped": a.Skipped, "result": string(text)} {
			texts[name] = append(texts[name], s)
		}
		largest, share, gated = append(largest, a.Largest), append(share, a.LargestShare), append(gated, a.Gated)
	}
	for name, column := range numbers {
		b.add(name, column)
	}
	for name, column := range texts {
		b.add(name, column)
	}
	b.add("largest", largest)
	b.add("largest_share", share)
	b.add("gated", gated)
	b.constant("term", term)
	return wrapf(db.insert(ctx, "audits_in", RoleBatch, term, b), "save audits")
}

// Audits reads what the audits of the newest builds found, newest first and then by view; of
// an audit that was made twice, the last. Builds is how many builds to look at.
func (db *DB) Audits(ctx context.Context, builds int) ([]schemas.Audit, error) {
	return readAudits(ctx, db.client, builds)
}

func readAudits(ctx context.Context, c *client, builds int) ([]schemas.Audit, error) {
	return auditsWhere(ctx, c, fmt.Sprintf("build IN (SELECT DISTINCT build FROM %s ORDER BY build DESC LIMIT %d)", c.name("audits"), builds))
}

// AuditsOf is Audits for one build; none if it was not audited.
func (db *DB) AuditsOf(ctx context.Context, build uint64) ([]schemas.Audit, error) {
	return auditsWhere(ctx, db.client, fmt.Sprintf("build = %d", build))
}

// AuditedBuilds lists the builds whose audits are stored, oldest first. Audits are kept longer than
// builds, and of builds that were computed and never shown as well.
func (db *DB) AuditedBuilds(ctx context.Context) ([]uint64, error) {
	got, err := rows[struct {
		Build uint64 `ch:"build"`
	}](ctx, db.client, "SELECT DISTINCT build FROM "+db.name("audits")+" ORDER BY build")
	if err != nil {
		return nil, fmt.Errorf("list audits: %w", err)
	}
	out := make([]uint64, len(got))
	for i, r := range got {
		out[i] = r.Build
	}
	return out, nil
}

func auditsWhere(ctx context.Context, c *client, where string) ([]schemas.Audit, error) {
	got, err := rows[struct {
		Result string `ch:"result"`
	}](ctx, c, fmt.Sprintf("SELECT argMax(result, (term, at)) AS result FROM %s WHERE %s GROUP BY build, plan, view ORDER BY build DESC, view, plan", c.name("audits"), where))
	if err != nil {
		return nil, fmt.Errorf("read audits: %w", err)
	}
	out := make([]schemas.Audit, len(got))
	for i, r := range got {
		if err := json.Unmarshal([]byte(r.Result), &out[i]); err != nil {
			return nil, fmt.Errorf("read audits: %w", err)
		}
	}
	return out, nil
}
