package api

import (
	"context"
	"time"

	"watershed/schemas"
)

// A Reader runs queries as ClickHouse's read-only user.
type Reader interface {
	// Query returns when ClickHouse has analysed the query, scalar subqueries included, and has begun to
	// answer. The context bounds the rows too: when it ends, or when the rows are closed early, the
	// query is stopped on the server. An error that ClickHouse itself reported is a ServerError.
	Query(ctx context.Context, q Query) (Rows, error)
}

// A Query is what a Reader runs.
type Query struct {
	SQL        string            // one statement, with {name:Type} for each parameter
	Parameters map[string]string // values in ClickHouse's escaped text, as TabSeparated has them
	Timeout    time.Duration     // ClickHouse stops the query then
	Rows       uint64            // ClickHouse refuses a longer result
	ID         string            // query id; empty: ClickHouse draws one
}

// Rows is the result of a query, one row at a time. It is used by one goroutine.
type Rows interface {
	// Columns may be called at once.
	Columns() []Column
	// Next goes to the next row; false at the end, and on an error.
	Next() bool
	// AppendJSON appends the row's value in that column as ClickHouse's JSON formats write it.
	AppendJSON(dst []byte, column int) []byte
	// AppendCSV appends it as ClickHouse's CSV does, quotes included.
	AppendCSV(dst []byte, column int) []byte
	// Err is why Next gave up; nil at the end.
	Err() error
	// Stats is final when Next has returned false.
	Stats() Stats
	// Close stops the query if it still runs. Closing twice does nothing.
	Close() error
}

// A Column is a result's column.
type Column struct {
	Name string
	Type string // ClickHouse's name of it
}

// Stats is what a query cost.
type Stats struct {
	Elapsed   time.Duration
	RowsRead  uint64
	BytesRead uint64
}

// A ServerError is an error that came from ClickHouse itself. It is found by errors.As.
type ServerError interface {
	error
	Code() int       // ClickHouse's number of it; 0: it did not answer, or not so that it was understood
	Message() string // its text, without code and stack
}

// A Catalog knows what is served.
type Catalog interface {
	// Live is the build that the merged views show.
	Live(ctx context.Context) (schemas.Live, error)
	// Build returns a kept build, with the plans that it covers.
	Build(ctx context.Context, number uint64) (schemas.Build, error)
	// Builds lists the builds that are kept.
	Builds(ctx context.Context) ([]BuildInfo, error)
	// Views returns the views that are shown, by name.
	Views(ctx context.Context) ([]View, error)
	// Reached says which build is live, and how far the views reach that it covers. As long as the flip is the
	// same, no position ever goes back.
	Reached(ctx context.Context) (Reached, error)
	// Positions says how far the states of each plan reach, by plan hash. Plans without any have no mark.
	Positions(ctx context.Context, views []View) (map[string]schemas.Mark, error)
}

// Reached is which build is live, and how far the views reach that it covers.
type Reached struct {
	Live  schemas.Live
	Plans []Reach
}

// A Reach is how far a view of the live build reaches.
type Reach struct {
	View              // as the build has it; only with its plan, if nothing defines that any more
	Position   uint64 // sequence up to which the merged view shows the log
	States     uint64 // sequence that the last flush with states reached; 0: there was none
	SpeedTable string // of the plan's speed states, where _pos.1 is the sequence that a group's last flush reached
}

// A BuildInfo is a build in short.
type BuildInfo struct {
	Number uint64    `json:"number"`
	Cut    uint64    `json:"cut"`
	At     time.Time `json:"at"`
	Live   bool      `json:"live"`
	Plans  []string  `json:"plans" doc:"Hashes of the plans that it covers"`
	Slices uint64    `json:"slices"`
}

// A Log tells where the log ends. Queries do without it; lag and readiness do not.
type Log interface {
	Info(ctx context.Context) (LogInfo, error)
	// NextOf returns the first message of events of a type behind a sequence, and when it was published.
	NextOf(ctx context.Context, eventType string, after uint64) (seq uint64, at time.Time, ok bool, err error)
}

// LogInfo is the state of the log.
type LogInfo struct {
	First       uint64    `json:"first" doc:"First sequence that is still there: up to it the log was trimmed"`
	Last        uint64    `json:"last" doc:"Last sequence"`
	FirstTime   time.Time `json:"first_time" doc:"When the first message that is still there was published"`
	Messages    uint64    `json:"messages"`
	Bytes       uint64    `json:"bytes"`
	MaxBytes    int64     `json:"max_bytes" doc:"Beyond which the log refuses events"`
	Fill        float64   `json:"fill" doc:"bytes / max_bytes"`
	DeadLetters uint64    `json:"dead_letters" doc:"Events and messages that did not fit their schema"`
	Created     time.Time `json:"created"`
	Cut         uint64    `json:"cut" doc:"Number of the last cut"`
	CutTime     time.Time `json:"cut_time" doc:"When it was published"`
	Anew        uint64    `json:"anew,omitempty" doc:"Positions up to here are of a log before this one, which a repair began anew"`
}

// A View is a compiled view as far as queries need it: the part of a plan from which SQL is made.
type View struct {
	Definition *schemas.View
	Plan       string // the plan's hash
	Dimensions []Dimension
	Measures   []Measure
}

// Name is the view's name, and that of its merged view.
func (v View) Name() string {
	if v.Definition == nil {
		return ""
	}
	return v.Definition.Name
}

// A Dimension is a key column of the view's tables.
type Dimension struct {
	Name     string
	Type     schemas.Type
	Nullable bool
	Bucket   time.Duration // the width of a time bucket; 0: it is none
}

// A Measure is a measured value.
type Measure struct {
	Name    string
	Columns []string // its state columns in <view>_states
	Func    Finisher
}

// A Finisher turns states into values.
type Finisher interface {
	// FinishSQL is the finished value over stored states in a GROUP BY; columns are quoted.
	FinishSQL(columns []string) string
	// ResultType is the ClickHouse type of the finished value.
	ResultType() string
}
