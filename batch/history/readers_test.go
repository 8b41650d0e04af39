package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/devserver"
	"watershed/schemas"
)

// A reader is an engine that reads our files.
type reader struct {
	name    string
	source  func(file string) string                                     // in FROM
	literal func(typ schemas.Type, col arrow.Array, i int) string        // of a value
	value   func(f schemas.Field) string                                 // an expression whose text is that of ourValue
	query   func(t testing.TB, statements []string) (answers [][]string) // each statement's rows, of one column
	digest  func(text string) string                                     // upper-case hex of MD5
}

func inClickHouse(c *devserver.ClickHouse) reader {
	return reader{
		name:    "ClickHouse",
		source:  func(file string) string { return fmt.Sprintf("file('%s', Parquet)", file) },
		literal: literal,
		value:   clickhouseValue,
		query: func(t testing.TB, statements []string) (answers [][]string) {
			for _, s := range statements {
				answers = append(answers, query(t, c, s))
			}
			return answers
		},
		digest: func(text string) string { return "hex(MD5(" + text + "))" },
	}
}

func inDuckDB() reader {
	return reader{
		name:    "DuckDB",
		source:  func(file string) string { return fmt.Sprintf("read_parquet('%s', hive_partitioning = false)", file) },
		literal: duckLiteral,
		value:   duckValue,
		query:   duckQuery,
		digest:  func(text string) string { return "upper(md5(" + text + "))" },
	}
}

// duckScript reads statements as a JSON array, and writes the first column of each one's rows.
const duckScript = `
import { readFileSync } from 'node:fs';
import { DuckDBInstance } from '@duckdb/node-api';
const instance = await DuckDBInstance.create(':memory:', { threads: '2' });
const connection = await instance.connect();
await connection.run("SET TimeZone = 'UTC'");
const answers = [];
for (const sql of JSON.parse(readFileSync(0, 'utf8'))) {
  const rows = await connection.runAndReadAll(sql);
  answers.push(rows.getRowsJson().map((row) => String(row[0])));
}
process.stdout.write(JSON.stringify(answers));
`

// duckQuery runs statements in DuckDB, in a process of its own.
func duckQuery(t testing.TB, statements []string) (answers [][]string) {
	t.Helper()
	input, err := json.Marshal(statements)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "--input-type=module", "--eval", duckScript)
	cmd.Dir = "../../cmd/bench/duckdb" // where `make setup` has put DuckDB
	cmd.Stdin = bytes.NewReader(input)
	var mistakes bytes.Buffer
	cmd.Stderr = &mistakes
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("DuckDB, which `make setup` installs: %v\n%s", err, mistakes.String())
	}
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}

// duckLiteral is a value in DuckDB's SQL.
func duckLiteral(typ schemas.Type, col arrow.Array, i int) string {
	switch a := col.(type) {
	case *array.String:
		return fmt.Sprintf("decode(unhex('%X'))", a.Value(i))
	case *array.Boolean:
		return strconv.FormatBool(a.Value(i))
	case *array.Int64:
		return fmt.Sprintf("'%d'::BIGINT", a.Value(i))
	case *array.Float64:
		return fmt.Sprintf("'%s'::DOUBLE", strconv.FormatFloat(a.Value(i), 'g', -1, 64))
	case *array.Decimal128:
		return fmt.Sprintf("'%s'::DECIMAL(%d, %d)", decimalText(a.Value(i), typ.Scale), typ.Precision, typ.Scale)
	case *array.Timestamp:
		return fmt.Sprintf("make_timestamptz(%d)", a.Value(i))
	case *array.Date32:
		return fmt.Sprintf("(DATE '1970-01-01' + (%d))", a.Value(i))
	}
	panic(typ)
}

// duckValue is an expression of DuckDB whose text is that of ourValue.
func duckValue(f schemas.Field) string {
	text := f.Name + "::VARCHAR"
	switch f.Type.Kind {
	case schemas.String:
		text = "hex(encode(" + f.Name + "))"
	case schemas.Bool:
		text = f.Name + "::INT::VARCHAR"
	case schemas.Float64:
		text = f.Name + "::BIT::UBIGINT::VARCHAR"
	case schemas.Timestamp:
		text = "epoch_us(" + f.Name + ")::VARCHAR"
	case schemas.Date:
		text = "(" + f.Name + " - DATE '1970-01-01')::VARCHAR"
	case schemas.Decimal: // without the point, and zeros that lead
		text = `regexp_replace(replace(` + f.Name + `::VARCHAR, '.', ''), '^(-?)0+(\d)', '\1\2')`
	}
	return "coalesce(" + text + ", 'null')"
}

// filters are statements that count the rows of a file for which a column compares so with one of its values, and add up
// their numbers; and what the answers are.
func (e reader) filters(random func(n int) int, ev *schemas.Event, rec arrow.Record, file string) (statements, want []string) {
	rows := rec.Column(rec.Schema().FieldIndices(schemas.RowColumn)[0]).(*array.Int32)
	ask := func(where string, takes func(i int) bool) {
		n, sum := 0, int64(0)
		for i := range rows.Len() {
			if takes(i) {
				n, sum = n+1, sum+int64(rows.Value(i))
			}
		}
		statements = append(statements, fmt.Sprintf("SELECT concat(count(*), ' ', coalesce(sum(_row), 0)) FROM %s WHERE %s", e.source(file), where))
		want = append(want, fmt.Sprintf("%d %d", n, sum))
	}
	for k, f := range ev.Fields {
		col := rec.Column(k)
		for _, op := range []string{"=", "<>", "<", "<=", ">", ">="} {
			if of := random(col.Len()); col.IsValid(of) {
				ask(f.Name+" "+op+" "+e.literal(f.Type, col, of), func(i int) bool { return col.IsValid(i) && holds(op, compareRows(col, i, of)) })
			}
		}
		if f.Optional {
			ask(f.Name+" IS NULL", col.IsNull)
			ask(f.Name+" IS NOT NULL", col.IsValid)
		}
	}
	return statements, want
}

// digests is a statement whose rows are those of a file, each as the digest of its values.
func (e reader) digests(ev *schemas.Event, file string) string {
	var cells []string
	for _, f := range ownFields(ev) {
		cells = append(cells, e.value(f))
	}
	return "SELECT " + e.digest("concat("+strings.Join(cells, ", '|', ")+")") + " FROM " + e.source(file) + " ORDER BY _row"
}
