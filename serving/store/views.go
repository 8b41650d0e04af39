package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"watershed/internal/crash"
	"watershed/schemas/view"
)

// mergedComment begins the comment of a merged view, which tells it from views that others made in the
// same database. A digest of what made the view follows.
const mergedComment = "merged view of Watershed"

// isMerged reports whether a view's comment is that of a merged view.
func isMerged(comment string) bool {
	return comment == mergedComment || strings.HasPrefix(comment, mergedComment+", ")
}

// PublishViews points the merged views at the plans: <view> has the finished values,
// <view>_states the states, which -Merge functions roll up further. A view whose plan the
// live build does not cover throws. Views that are as they would be made are left alone.
func (db *DB) PublishViews(ctx context.Context, plans []*view.Plan) error {
	layouts := make([]*layout, len(plans))
	for i, p := range plans {
		layouts[i] = layoutOf(p)
	}
	if err := checkNames(layouts); err != nil {
		return err
	}
	version, stand, err := db.published(ctx)
	if err != nil {
		return fmt.Errorf("look at the merged views: %w", err)
	}
	// Each view changes by itself, and its comment with it. If we stop between two, the next call changes
	// the rest.
	for _, l := range layouts {
		for name, sql := range map[string]string{
			l.view:             db.mergedSQL(l, finished),
			l.view + "_states": db.mergedSQL(l, merged),
		} {
			// Another version of ClickHouse may give a view's columns other types.
			comment := fmt.Sprintf("%s, %x", mergedComment, sha256.Sum256([]byte(version+"\n"+sql)))
			if stand[name] == comment {
				continue
			}
			sql = fmt.Sprintf("CREATE OR REPLACE VIEW %s SQL SECURITY INVOKER AS %s COMMENT %s", db.name(name), sql, literal(comment))
			if err := db.exec(ctx, sql); err != nil {
				return fmt.Errorf("publish view %s: %w", name, err)
			}
			stand[name] = comment
			crash.At("store.view-published")
		}
	}
	return nil
}

// published returns the version of ClickHouse, and the comments of the views that are there, by name.
func (db *DB) published(ctx context.Context) (version string, comments map[string]string, err error) {
	got, err := rows[struct {
		Name    string `ch:"name"`
		Comment string `ch:"comment"`
	}](ctx, db.client, "SELECT '' AS name, version() AS comment UNION ALL SELECT name, comment FROM system.tables WHERE engine = 'View' AND database = "+literal(db.database))
	if err != nil {
		return "", nil, err
	}
	comments = make(map[string]string, len(got))
	for _, v := range got {
		comments[v.Name] = v.Comment
	}
	return comments[""], comments, nil
}

// mergedSQL is the query of a merged view. Both sides take the live build from one scalar
// subquery, which is evaluated once a query, for all merged views in it, because they run
// with the invoker's rights: no answer mixes two builds. Columns are named through the alias
// so that no measure's name hides a state's.
//
// Where the plan's speed states begin is looked up after the parts to be read of them are chosen: a
// writer says so before it adds the first of them, so that none is shown behind a gap.
func (db *DB) mergedSQL(l *layout, outputs func(view.Measure, []string) []string) string {
	columns := names("", l.columns())
	plan := literal(l.hash)
	return fmt.Sprintf(`WITH (SELECT if(throwIf(count() = 0, 'no build is live; run a batch'), 0, argMax(build, flip)) FROM %[1]s) AS _build,
(SELECT if(throwIf(count() = 0, %[2]s), 0, max(at_cut)) FROM %[3]s WHERE build = _build AND plan = %[4]s) AS _cut
SELECT %[5]s FROM (
SELECT %[6]s FROM %[7]s WHERE _slice IN (SELECT slice FROM %[3]s WHERE build = _build AND plan = %[4]s) AND _cut >= 0
UNION ALL
SELECT %[6]s FROM %[8]s WHERE _epoch >= _cut AND (SELECT throwIf(max(epoch) > _cut, %[10]s) FROM %[11]s WHERE plan = %[4]s) = 0
) AS _s%[9]s`,
		db.name("live"), literal("view "+l.view+": its definition is newer than the live build; run a batch"), db.name("builds"), plan,
		l.outputs("_s.", outputs), columns, db.name(l.batch()), db.name(l.speed()), l.groupBy("_s."),
		literal("view "+l.view+": its speed states do not reach back to the live build; run a batch"), db.name("begins"))
}
