package eventlog

import (
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// metaOf reads what JetStream says of a message in its reply subject,
//
//	$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<nanoseconds>.<pending>
//
// and sets the sequences, the timestamp and the number pending. It knows this form alone and reports false for any other: that of
// an account with a domain is read by the library, which takes four times as long, and allocates.
func metaOf(reply string, meta *jetstream.MsgMetadata) bool {
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return false
	}
	for range 3 { // up to the deliveries
		if _, rest, ok = strings.Cut(rest, "."); !ok {
			return false
		}
	}
	var n [4]uint64
	for i := range n {
		var digits string
		digits, rest, ok = strings.Cut(rest, ".")
		if ok != (i < len(n)-1) || !number(digits, &n[i]) {
			return false
		}
	}
	meta.Sequence = jetstream.SequencePair{Stream: n[0], Consumer: n[1]}
	meta.Timestamp, meta.NumPending = time.Unix(0, int64(n[2])), n[3]
	return true
}

// number reads a number below 2^63.
func number(digits string, n *uint64) bool {
	if len(digits) == 0 || len(digits) > 19 {
		return false
	}
	for i := range len(digits) {
		d := digits[i] - '0'
		if d > 9 {
			return false
		}
		*n = 10**n + uint64(d)
	}
	return *n < 1<<63
}
