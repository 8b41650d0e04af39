package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"watershed/schemas"
	"watershed/schemas/view"
)

//go:embed duckdb/*.sql duckdb/run.mjs
var duckFiles embed.FS

// duckSetting names the directory that has DuckDB's node_modules, in the environment.
const duckSetting = "WATERSHED_BENCH_DUCKDB"

// duckModules is the directory into which `npm ci` has put DuckDB: below the working directory or one
// above it.
func duckModules() (string, error) {
	if dir := os.Getenv(duckSetting); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		for _, sub := range []string{"cmd/bench/duckdb", "duckdb"} {
			if _, err := os.Stat(filepath.Join(dir, sub, "node_modules", "@duckdb", "node-api")); err == nil {
				return filepath.Join(dir, sub), nil
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("DuckDB is not installed: run `npm ci --prefix cmd/bench/duckdb`, or `make bench-batch`, which does")
		}
		dir = up
	}
}

// duckViews are the views' queries in DuckDB, by name.
func duckViews(data string) (map[string]string, error) {
	text, err := duckFiles.ReadFile("duckdb/" + data + ".sql")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, part := range strings.Split(string(text), "-- view: ")[1:] {
		name, sql, _ := strings.Cut(part, "\n")
		out[name] = strings.TrimSpace(sql)
	}
	return out, nil
}

// duckQuantile is what a query has in the place of which all values of a group can be had. Tables of
// those are exported under the view's name and a suffix.
var duckQuantile = regexp.MustCompile(`quantile_disc\((\w+), \[[^]]*\]\)`)

const sortedSuffix = ".sorted"

type duckStatement struct {
	Name string `json:"name"`
	SQL  string `json:"sql"`
}

type duckTask struct {
	Database  string          `json:"database"`
	Temporary string          `json:"temporary"`
	Threads   int             `json:"threads"`
	Memory    string          `json:"memory"`
	Timed     []duckStatement `json:"timed"`
	After     []string        `json:"after"`
}

// duckdb computes the views as DuckDB would: one CREATE TABLE AS per view, in a database file. If
// export is not empty, the tables are written there as Parquet afterwards.
func (b *bench) duckdb(ctx context.Context, d *dataset, plans []*view.Plan, files string, duplicates bool, export string) (timing, string, error) {
	dir, err := os.MkdirTemp(b.cfg.Dir, "duckdb-")
	if err != nil {
		return timing{}, "", err
	}
	t, version, err := b.runDuck(ctx, d, plans, files, duplicates, export, dir)
	if err != nil {
		err = fmt.Errorf("DuckDB: %w", err)
	}
	return t, version, errors.Join(err, os.RemoveAll(dir))
}

func (b *bench) runDuck(ctx context.Context, d *dataset, plans []*view.Plan, files string, duplicates bool, export, dir string) (t timing, version string, err error) {
	queries, err := duckViews(d.name)
	if err != nil {
		return t, "", err
	}
	events := fmt.Sprintf("read_parquet('%s', hive_partitioning = false)", files)
	todo := duckTask{
		Database: filepath.Join(dir, "duck.db"), Temporary: filepath.Join(dir, "tmp"),
		Threads: b.cores, Memory: fmt.Sprintf("%dMiB", b.cfg.Memory>>20),
		After: []string{},
	}
	if duplicates {
		if todo.Timed, err = duckDistinct(plans, files); err != nil {
			return t, "", err
		}
		events = "_distinct"
	}
	for _, p := range plans {
		sql, ok := queries[p.Name()]
		if !ok {
			return t, "", fmt.Errorf("no query for view %s", p.Name())
		}
		todo.Timed = append(todo.Timed, duckStatement{p.Name(), fmt.Sprintf("CREATE TABLE %s AS %s", p.Name(), strings.ReplaceAll(sql, "EVENTS", events))})
		if export != "" {
			todo.After = append(todo.After, fmt.Sprintf("COPY %s TO '%s' (FORMAT parquet)", duckExported(p), filepath.Join(export, p.Name()+".parquet")))
			if b.cfg.Events <= sortedLimit && duckQuantile.MatchString(sql) {
				all := strings.ReplaceAll(duckQuantile.ReplaceAllString(sql, "list_sort(list($1))"), "EVENTS", events)
				todo.After = append(todo.After, fmt.Sprintf("COPY (%s) TO '%s' (FORMAT parquet)", all, filepath.Join(export, p.Name()+sortedSuffix+".parquet")))
			}
		}
	}
	script, err := duckScript(dir)
	if err != nil {
		return t, "", err
	}
	input, err := json.Marshal(todo)
	if err != nil {
		return t, "", err
	}
	cmd := exec.CommandContext(ctx, "node", script)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return t, "", fmt.Errorf("%w\n%s", err, stderr.String())
	}
	var answer struct {
		timing
		Version string `json:"version"`
	}
	err = json.Unmarshal(text, &answer)
	return answer.timing, answer.Version, err
}

// duckScript writes the script beside a link to DuckDB's modules.
func duckScript(dir string) (string, error) {
	modules, err := duckModules()
	if err != nil {
		return "", err
	}
	modules, err = filepath.Abs(filepath.Join(modules, "node_modules"))
	if err != nil {
		return "", err
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		return "", err
	}
	text, err := fs.ReadFile(duckFiles, "duckdb/run.mjs")
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, "run.mjs")
	return script, os.WriteFile(script, text, 0o600)
}

// duckDistinct removes duplicates once, for all views, date by date: that took less than half the CPU
// time of one statement for all dates, and GROUP BY with any_value less than DISTINCT ON. All copies of
// an event are equal in these data, so any one may be taken.
func duckDistinct(plans []*view.Plan, files string) (out []duckStatement, err error) {
	var columns []string
	for _, in := range inputs(plans) {
		columns = append(columns, fmt.Sprintf("any_value(%q) AS %q", in, in))
	}
	dates, err := filepath.Glob(filepath.Dir(files))
	for i, dir := range dates {
		into := "INSERT INTO _distinct"
		if i == 0 {
			into = "CREATE TEMP TABLE _distinct AS"
		}
		out = append(out, duckStatement{"duplicates", fmt.Sprintf("%s SELECT %s FROM read_parquet('%s', hive_partitioning = false) GROUP BY %q",
			into, strings.Join(columns, ", "), filepath.Join(dir, filepath.Base(files)), plans[0].Event.ID)})
	}
	return out, err
}

// duckExported is a view's table with types that Parquet keeps whole: DuckDB writes its 128-bit
// integers as floating point.
func duckExported(p *view.Plan) string {
	var casts []string
	for _, m := range p.Measures {
		if m.Arg != nil && m.Func.Name() == "sum" && m.Arg.Type().Kind == schemas.Int64 {
			casts = append(casts, fmt.Sprintf("%q::DECIMAL(38,0) AS %q", m.Name, m.Name))
		}
	}
	if len(casts) == 0 {
		return p.Name()
	}
	return fmt.Sprintf("(SELECT * REPLACE (%s) FROM %s)", strings.Join(casts, ", "), p.Name())
}
