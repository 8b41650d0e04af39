package schemas

import (
	"time"

	"github.com/apache/arrow/go/v15/arrow"
)

// A Position is a place in the log: a stream sequence and the hash of the message at it. The
// hash covers the message's subject, log timestamp and payload, so that a position stored
// elsewhere can be held against a log that was truncated, recreated or restored. The zero
// Position is before the first message.
type Position struct {
	Seq  uint64 `json:"seq"`
	Hash uint64 `json:"hash"`
}

// A Cut is a numbered marker in the log. Cuts are numbered from 1 without gaps; epoch n is
// the stretch of log after cut n and before cut n+1, epoch 0 what lies before cut 1.
type Cut struct {
	Number      uint64   `json:"number"`
	Previous    Position `json:"previous"`       // where the cut before stands; zero for cut 1
	Definitions Set      `json:"definitions"`    // what holds from here on
	Retiring    Set      `json:"retiring"`       // defined no more, but still shown by the live build: folded until it flips
	Anew        uint64   `json:"anew,omitempty"` // set in the first message of a log that was begun anew: positions up to here are of the log before

	// How far an event time may lie before and after the log's timestamp, from here on, in
	// nanoseconds; 0: the decoder's default.
	Past   time.Duration `json:"past,omitempty"`
	Future time.Duration `json:"future,omitempty"`

	Position Position  `json:"-"` // where this cut stands
	At       time.Time `json:"-"` // the log's timestamp of the cut
}

// A Chunk is a contiguous run of the log, decoded. Its rows stand in log order. It never
// continues past a cut: the cut, if there is one, is its last message.
type Chunk struct {
	Epoch     uint64                  // the epoch that the chunk's events lie in
	After     Position                // of the message before the chunk's first
	Last      Position                // of the chunk's last message
	LastTime  time.Time               // the log's timestamp of the last message
	Records   map[string]arrow.Record // events by type, columns as in Event.ArrowSchema; absent when there are none
	Rejects   []Reject                // what did not fit, in log order
	Traced    []Traced                // messages that have a trace, in log order: some of them, if there are many
	Cut       *Cut                    // set if the last message is a cut
	BeforeCut Position                // then: of the message before it, where the epoch's events end
	Caught    bool                    // no further message was in the log when this chunk was read
}

// Traced names a message that is part of an OpenTelemetry trace.
type Traced struct {
	Seq         uint64
	Type        string // the event type that its subject names
	Traceparent string // its header, as the producer wrote it
}

// A Reject is an event, or a whole message, that does not fit its schema.
type Reject struct {
	Seq     uint64    // of the message
	Row     int       // in the message; -1: the message as a whole
	Type    string    // the event type that its subject names
	Time    time.Time // the log's timestamp
	Reason  string    // with the field's name where one is at fault
	Payload []byte    // the original bytes
	// Header is the headers that say how Payload is read; nil: JSON events, one per line.
	Header map[string]string
}

// A slice's id is the term of the batch that computed it, the number of the parcel that it was
// inserted in, and its number in there: 32, 20 and 12 bits. Slices of one parcel share a
// partition of the plan's batch table.
const (
	ParcelBits     = 12
	SliceTermShift = 32
)

// SliceID returns the id of slice n of a parcel. n is below 1<<ParcelBits.
func SliceID(term, parcel, n uint64) uint64 { return term<<SliceTermShift | parcel<<ParcelBits | n }

// A Slice is the batch-computed states of one plan over one date of history, in the batch
// table of the plan under an id that is never used twice.
type Slice struct {
	Key        string // hash of the plan and of the content of the files read
	Plan       string // plan hash
	Date       int32  // days since 1970-01-01
	ID         uint64 // see SliceID
	Groups     uint64 // rows inserted
	Events     uint64 // events folded, after the filter
	Duplicates uint64 // events of the date dropped as duplicates
}

// A Build is the outcome of one batch run at a cut: for each plan that it covers, one slice
// per date. It holds all that is needed to show it again, whatever the log has forgotten.
type Build struct {
	Number      uint64 // equal to its cut's; 0 is the empty build at the beginning of the log
	Cut         uint64
	Position    Position           // where the cut stands
	Definitions Set                // what the cut defines
	Plans       map[string]Covered // by plan hash
	At          time.Time
}

// Covered is what a build holds of one plan: everything before a cut. That is the build's own,
// or an older one if the archive of the plan's event type had not reached it.
type Covered struct {
	Cut      uint64   // the speed states of epochs >= this are added
	Position Position // where that cut stands
	Slices   []Slice  // one per date; none if there is no history
}

// Live says which build the merged views show.
type Live struct {
	Flip   uint64    `json:"flip"` // number of the flip that made it so
	Build  uint64    `json:"build"`
	Cut    uint64    `json:"cut"`    // the build's
	Pinned bool      `json:"pinned"` // by a rollback: no automatic flip until released
	At     time.Time `json:"at"`
}

// A Mark is how far a plan's states reach in ClickHouse: everything up to Position is in
// them, and Position lies in Epoch.
type Mark struct {
	Epoch    uint64   `json:"epoch"`
	Position Position `json:"position"`
}
