package history

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/schemas"
)

// ImportConfig says what an import reads.
type ImportConfig struct {
	Path   string            // the source, one file
	Format string            // parquet, ndjson or csv; empty: by the name's ending
	Map    map[string]string // our field to the source's column; a field that is not here has its own name

	// From and To select the events with From <= event time < To; a zero bound is none. The rows keep
	// their numbers in the source, so that ranges of one source can be imported one after the other.
	From, To time.Time

	// Progress, if set, is told now and then how many of the source's bytes have been read.
	Progress func(done, total int64)
}

// An ImportReport says what an import did.
type ImportReport struct {
	Source   string // sha256 of the source, hex
	Already  bool   // the very same was imported before; nothing was done
	Rows     int64  // imported
	Outside  int64  // rows of the source outside of From..To
	Files    int    // written
	Version  int64  // of the table that has them
	Duration time.Duration
}

// importBytes is how much of a source may wait in memory until it is written.
const importBytes = 256 << 20

// writersPerCore is how many files an import writes at once.
const writersPerCore = 8

// coldRecords is after how many records without an event of a date the date is taken to be complete.
const coldRecords = 4

// Import adds a file of events to a table, all in one commit or not at all: a row that does not fit is
// an error that names it, and then nothing is there. Importing the same again changes nothing, since
// the commit carries a txn named by the source's hash (and by the range, if there is one).
//
// An event's id is its field's column. If the source has none, it is "<file name>#<row>", rows counted
// from 0: a later, longer version of such a file repeats the events that are there already, and an
// unrelated file of the same name must be renamed first. Imported events have _seq 0 and never pass the
// log: views show them from the next build on.
//
// In Parquet a column may have any type that holds the field's without loss of digits, and timestamps
// any unit, with zone or without (taken as UTC). In CSV, whose first line names the columns, an empty
// value is null where the field is optional. NDJSON is held against the schema as strictly as the log's.
func Import(ctx context.Context, t *Table, cfg ImportConfig) (ImportReport, error) {
	start := t.now()
	report, err := runImport(ctx, t, cfg)
	if err != nil {
		return ImportReport{}, fmt.Errorf("import %s: %w", cfg.Path, err)
	}
	report.Duration = t.now().Sub(start)
	return report, nil
}

func runImport(ctx context.Context, t *Table, cfg ImportConfig) (ImportReport, error) {
	file, err := os.Open(cfg.Path)
	if err != nil {
		return ImportReport{}, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return ImportReport{}, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return ImportReport{}, err
	}
	report := ImportReport{Source: hex.EncodeToString(sum.Sum(nil))}
	app := importApp(report.Source, cfg)
	snapshot, err := t.Snapshot(ctx)
	if err != nil {
		return report, err
	}
	if snapshot.Txns[app] > 0 { // 0 or less: a repair took its rows away
		report.Already, report.Version = true, snapshot.Version
		return report, nil
	}
	im := &importer{table: t, cfg: cfg, report: &report, total: before.Size(), dates: newDateBuffers(t.event)}
	if err := im.run(ctx, file); err != nil {
		return report, err
	}
	after, err := os.Stat(cfg.Path)
	if err != nil {
		return report, err
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return report, errors.New("the file changed while it was read")
	}
	for _, a := range im.adds {
		a.Tags[tagSource] = app
	}
	crash.At("history.import-written")
	// If we stop before this commit, files lie there that no version names, and the import can be made
	// again; after it, all rows are there, and making it again changes nothing.
	report.Version, err = t.commit(ctx, &change{operation: "IMPORT", adds: im.adds, txns: []txn{{AppID: app, Version: 1}}, absent: app})
	var conflict *conflictError
	if errors.As(err, &conflict) && conflict.done {
		return ImportReport{Source: report.Source, Already: true, Version: t.version()}, nil
	}
	report.Files = len(im.adds)
	return report, err
}

// importApp names an import in the table's txns.
func importApp(sum string, cfg ImportConfig) string {
	app := importPrefix + sum
	if !cfg.From.IsZero() || !cfg.To.IsZero() {
		app += fmt.Sprintf("/%s..%s", rangeText(cfg.From), rangeText(cfg.To))
	}
	return app
}

func rangeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// A rowSource hands out a source's rows as records of the table's type, _seq 0 and _row counting from 0.
type rowSource interface {
	next() (arrow.Record, error) // io.EOF after the last
	done() int64                 // bytes of the source read so far
	unique() bool                // ids are made from row numbers
}

// An importer is one import under way.
type importer struct {
	table  *Table
	cfg    ImportConfig
	report *ImportReport
	total  int64 // bytes of the source
	dates  *dateBuffers
	adds   []*add
}

func (im *importer) open(file *os.File) (rowSource, error) {
	form := im.cfg.Format
	if form == "" {
		form = strings.TrimPrefix(strings.ToLower(filepath.Ext(im.cfg.Path)), ".")
	}
	for field := range im.cfg.Map {
		if im.table.event.Field(field) == nil {
			return nil, fmt.Errorf("the type has no field %s to map a column to", field)
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	src := sourceInfo{event: im.table.event, columns: im.cfg.Map, name: filepath.Base(im.cfg.Path)}
	switch form {
	case "parquet":
		return openParquetSource(file, im.total, src)
	case "ndjson", "jsonl", "json":
		return openNDJSON(file, src)
	case "csv":
		return openCSV(file, src)
	}
	return nil, fmt.Errorf("format %q is not known: use parquet, ndjson or csv", form)
}

// A sourceInfo is what all formats need to know.
type sourceInfo struct {
	event   *schemas.Event
	columns map[string]string
	name    string // of the file; begins the ids of rows without one
}

func (s sourceInfo) column(field string) string {
	if c := s.columns[field]; c != "" {
		return c
	}
	return field
}

// checkNoID tells whether ids can be made from row numbers.
func (s sourceInfo) checkNoID() error {
	if s.event.Field(s.event.ID).Type.Kind != schemas.String {
		return fmt.Errorf("there is no column %s, and an id that is not a string cannot be made from row numbers", s.column(s.event.ID))
	}
	return nil
}

// run writes all files. On an error those that are written stay unnamed: vacuum removes them.
func (im *importer) run(ctx context.Context, file *os.File) error {
	src, err := im.open(file)
	if err != nil {
		return err
	}
	// The reader goes on while files are written. Writing a small file is mostly waiting for fsync
	// (measured: 151 files took 2.9 s two at a time, 1 s of it computing), hence more than one a core.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writersPerCore * runtime.GOMAXPROCS(0))
	results := make(chan *add)
	var collected []*add
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		for a := range results {
			collected = append(collected, a)
		}
	}()
	err = im.read(ctx, src, func(date int32, parts []bufferPart) {
		group.Go(func() error {
			a, err := im.table.writeParts(date, parts, src.unique(), true)
			if err == nil {
				results <- a
			}
			return err
		})
	})
	err = errors.Join(group.Wait(), err)
	close(results)
	<-joined
	im.adds = collected
	return err
}

// read takes the source's rows apart by date, and gives dates to write as they become complete or large.
func (im *importer) read(ctx context.Context, src rowSource, write func(int32, []bufferPart)) error {
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !im.cfg.From.IsZero() {
		from = ceilMicros(im.cfg.From)
	}
	if !im.cfg.To.IsZero() {
		to = ceilMicros(im.cfg.To)
	}
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := src.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		taken, err := im.dates.add(rec, n, func(at, _ int64) bool { return at >= from && at < to })
		if err != nil {
			return err
		}
		im.report.Rows += taken
		im.report.Outside += rec.NumRows() - taken
		for _, d := range im.dates.ready(n-coldRecords, importBytes) {
			write(d, im.dates.take(d))
		}
		if im.cfg.Progress != nil {
			im.cfg.Progress(src.done(), im.total)
		}
	}
	for _, d := range im.dates.ready(math.MaxInt, 0) {
		write(d, im.dates.take(d))
	}
	return nil
}

// ceilMicros makes a bound that lies between two microseconds the later one.
func ceilMicros(t time.Time) int64 {
	us := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		us++
	}
	return us
}

// version is the newest version read.
func (t *Table) version() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.version
}
