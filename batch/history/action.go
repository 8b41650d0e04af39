package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

	"github.com/google/uuid"

	"watershed/schemas"
)

const (
	logDirName = "_delta_log"
	dateColumn = "_date"
	maxLogLine = 64 << 20 // bytes of one action
)

// An action is one line of a commit: exactly one member is set. Members that we do not know are skipped.
type action struct {
	CommitInfo *commitInfo `json:"commitInfo,omitempty"`
	Protocol   *protocol   `json:"protocol,omitempty"`
	MetaData   *metaData   `json:"metaData,omitempty"`
	Txn        *txn        `json:"txn,omitempty"`
	Add        *add        `json:"add,omitempty"`
	Remove     *remove     `json:"remove,omitempty"`
}

// commitInfo is for people, but for ID: by that a committer knows its own commit again when it could not
// see whether it succeeded.
type commitInfo struct {
	Timestamp int64  `json:"timestamp"` // ms
	Operation string `json:"operation"`
	Engine    string `json:"engineInfo"`
	ID        string `json:"txnId"`
}

// The operations that a repair tells apart when the rest of a commit cannot be read.
const (
	opArchive = "STREAMING UPDATE"
	opCompact = "OPTIMIZE"
)

func newCommitInfo(operation string, ms int64) *commitInfo {
	return &commitInfo{Timestamp: ms, Operation: operation, Engine: "watershed", ID: uuid.NewString()}
}

type protocol struct {
	MinReaderVersion int32 `json:"minReaderVersion" parquet:"minReaderVersion"`
	MinWriterVersion int32 `json:"minWriterVersion" parquet:"minWriterVersion"`
}

type fileFormat struct {
	Provider string            `json:"provider" parquet:"provider"`
	Options  map[string]string `json:"options" parquet:"options"`
}

type metaData struct {
	ID               string            `json:"id" parquet:"id"`
	Format           fileFormat        `json:"format" parquet:"format"`
	SchemaString     string            `json:"schemaString" parquet:"schemaString"`
	PartitionColumns []string          `json:"partitionColumns" parquet:"partitionColumns,list"`
	Configuration    map[string]string `json:"configuration" parquet:"configuration"`
	CreatedTime      int64             `json:"createdTime" parquet:"createdTime"` // ms
}

type txn struct {
	AppID       string `json:"appId" parquet:"appId"`
	Version     int64  `json:"version" parquet:"version"`
	LastUpdated int64  `json:"lastUpdated" parquet:"lastUpdated"` // ms
}

type add struct {
	Path             string            `json:"path" parquet:"path"` // percent-encoded
	PartitionValues  map[string]string `json:"partitionValues" parquet:"partitionValues"`
	Size             int64             `json:"size" parquet:"size"`
	ModificationTime int64             `json:"modificationTime" parquet:"modificationTime"` // ms
	DataChange       bool              `json:"dataChange" parquet:"dataChange"`
	Stats            string            `json:"stats" parquet:"stats"` // JSON
	Tags             map[string]string `json:"tags" parquet:"tags"`
}

type remove struct {
	Path              string            `json:"path" parquet:"path"` // percent-encoded
	DeletionTimestamp int64             `json:"deletionTimestamp" parquet:"deletionTimestamp"`
	DataChange        bool              `json:"dataChange" parquet:"dataChange"`
	ExtendedMetadata  bool              `json:"extendedFileMetadata" parquet:"extendedFileMetadata"`
	PartitionValues   map[string]string `json:"partitionValues" parquet:"partitionValues"`
	Size              int64             `json:"size" parquet:"size"`
}

// The tags of an add.
const (
	tagSHA256   = "sha256"
	tagContent  = "content"
	tagUnique   = "unique"
	tagDistinct = "distinct" // see File.Distinct
	tagImport   = "import"
	tagSource   = "source" // of an imported file: the txn of its import

	// Of a file that a compaction wrote.
	tagAsOf       = "asof"       // see File.AsOf
	tagDuplicates = "duplicates" // see File.Duplicates
)

const versionDigits = 20

func versionName(v int64) string { return fmt.Sprintf("%020d.json", v) }

func encodeActions(actions []action) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, a := range actions {
		if err := enc.Encode(a); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func decodeActions(text []byte) ([]action, error) {
	var actions []action
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxLogLine)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		a, err := decodeAction(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		actions = append(actions, a)
	}
	return actions, lines.Err()
}

func decodeAction(line []byte) (action, error) {
	var a action
	if err := json.Unmarshal(line, &a); err != nil {
		return action{}, err
	}
	switch {
	case a.Protocol != nil && a.Protocol.MinReaderVersion > 1:
		return action{}, fmt.Errorf("the table needs Delta reader version %d; this is 1", a.Protocol.MinReaderVersion)
	case a.Add != nil:
		if _, err := a.Add.file(); err != nil {
			return action{}, err
		}
	case a.Remove != nil:
		if _, err := decodePath(a.Remove.Path); err != nil {
			return action{}, err
		}
	}
	return a, nil
}

// encodePath is the form of a relative path in the log.
func encodePath(p string) string { return (&url.URL{Path: p}).EscapedPath() }

// decodePath accepts only paths that stay inside the table.
func decodePath(encoded string) (string, error) {
	p, err := url.PathUnescape(encoded)
	if err != nil {
		return "", fmt.Errorf("path %q: %w", encoded, err)
	}
	if p == "" || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("path %q does not lie inside the table", encoded)
	}
	return p, nil
}

// file reads an add.
func (a *add) file() (File, error) {
	p, err := decodePath(a.Path)
	if err != nil {
		return File{}, err
	}
	date, err := parseDate(a.PartitionValues[dateColumn])
	if err != nil {
		return File{}, fmt.Errorf("file %s: %w", p, err)
	}
	var s struct {
		NumRecords *int64                     `json:"numRecords"`
		Min        map[string]json.RawMessage `json:"minValues"`
		Max        map[string]json.RawMessage `json:"maxValues"`
		Nulls      map[string]json.RawMessage `json:"nullCount"`
	}
	if err := json.Unmarshal([]byte(a.Stats), &s); err != nil {
		return File{}, fmt.Errorf("file %s: statistics: %w", p, err)
	}
	if s.NumRecords == nil || *s.NumRecords < 0 || a.Size < 0 {
		return File{}, fmt.Errorf("file %s: no valid size and number of rows", p)
	}
	f := File{
		Path: p, Date: date, Size: a.Size, Rows: *s.NumRecords,
		SHA256: a.Tags[tagSHA256], Content: a.Tags[tagContent],
		Unique: a.Tags[tagUnique] == "true", Distinct: a.Tags[tagDistinct], Import: a.Tags[tagImport] == "true", source: a.Tags[tagSource],
		AsOf: int64(parseSeq(json.RawMessage(a.Tags[tagAsOf]), 0)), Duplicates: int64(parseSeq(json.RawMessage(a.Tags[tagDuplicates]), 0)),
		MaxSeq: math.MaxInt64,
	}
	f.MinSeq = parseSeq(s.Min[schemas.SeqColumn], 0)
	f.MaxSeq = parseSeq(s.Max[schemas.SeqColumn], math.MaxInt64)
	if len(s.Nulls) > 0 {
		f.columns = unique.Make(strings.Join(slices.Sorted(maps.Keys(s.Nulls)), ",") + ",")
	}
	return f, nil
}

// has tells whether the file was committed with that column, as far as is known.
func (f File) has(column string) bool {
	if f.columns == (unique.Handle[string]{}) {
		return false
	}
	return strings.Contains(","+f.columns.Value(), ","+column+",")
}

func parseSeq(raw json.RawMessage, absent uint64) uint64 {
	n, err := strconv.ParseUint(string(raw), 10, 63)
	if err != nil {
		return absent
	}
	return n
}

const day = 24 * time.Hour

func formatDate(days int32) string {
	return time.Unix(int64(days)*int64(day/time.Second), 0).UTC().Format(time.DateOnly)
}

func parseDate(s string) (int32, error) {
	d, err := time.ParseInLocation(time.DateOnly, s, time.UTC)
	if err != nil {
		return 0, fmt.Errorf("partition value %s = %q is no date", dateColumn, s)
	}
	return int32(d.Unix() / int64(day/time.Second)), nil
}

// deltaSchema is the schemaString of a new table.
func deltaSchema(ev *schemas.Event) (string, error) {
	s := deltaStruct{Type: "struct"}
	for _, f := range ev.Fields {
		s.Fields = append(s.Fields, columnOf(f))
	}
	s.Fields = append(s.Fields, ownColumns()...)
	text, err := json.Marshal(s)
	return string(text), err
}

type deltaStruct struct {
	Type   string       `json:"type"`
	Fields []deltaField `json:"fields"`
}

type deltaField struct {
	Name     string          `json:"name"`
	Type     string          `json:"type"`
	Nullable bool            `json:"nullable"`
	Metadata json.RawMessage `json:"metadata"` // other engines' comments, kept
}

// columnOf is a declared field's column.
func columnOf(f schemas.Field) deltaField { return newColumn(f.Name, f.Type.Delta(), f.Optional) }

// ownColumns are the last columns of every table.
func ownColumns() []deltaField {
	return []deltaField{newColumn(schemas.SeqColumn, "long", false), newColumn(schemas.RowColumn, "integer", false), newColumn(dateColumn, "date", false)}
}

func newColumn(name, typ string, nullable bool) deltaField {
	return deltaField{name, typ, nullable, json.RawMessage("{}")}
}

func (f deltaField) equal(g deltaField) bool {
	return f.Name == g.Name && f.Type == g.Type && f.Nullable == g.Nullable
}

func (f deltaField) String() string {
	if f.Nullable {
		return f.Name + " " + f.Type + " optional"
	}
	return f.Name + " " + f.Type
}
