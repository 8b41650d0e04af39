package ingest

import (
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/decode"
	"watershed/schemas"
)

// arrow checks the rows of an Arrow stream, and returns those that fit as lines of JSON: so a request becomes the same
// messages whether it came as Arrow or not, packed with others and of a size that the log takes. Memory is taken for the
// lines; a stream is read in small parts, whatever it says of itself.
func (k *check) arrow(ev *schemas.Event, body []byte, held *hold) ([]byte, error) {
	if len(body) == 0 {
		return nil, nil
	}
	var failed error // of ours, not of the stream
	err := k.d.ReadArrow(body, k.now, decode.ArrowParts{Row: k.largest, Text: int(k.most)}, func(rec arrow.Record, bad []schemas.Reject) error {
		for i := range bad {
			field, reason := fieldOf(bad[i].Reason)
			k.refuse(bad[i].Row, field, reason)
		}
		rows := rec.Column(int(rec.NumCols()) - 1).(*array.Int32)
		failed = k.write(ev, rec, func(i int) int { return int(rows.Value(i)) }, held)
		return failed
	})
	switch {
	case failed != nil:
		return nil, failed
	case errors.Is(err, decode.ErrArrowText):
		return nil, &TooLargeError{Limit: k.most, Unpacked: true}
	case err != nil:
		return nil, &BodyError{fmt.Errorf("the body cannot be read: %w", err)}
	}
	return k.rows, nil
}
