package decode

import (
	"errors"
	"fmt"
	"mime"
	"strings"
)

// A Format says how the bytes of a message are events. The zero Format is NDJSON.
type Format struct {
	kind kind
	ce   *attributes // of a CloudEvent whose attributes are headers, else nil
}

// A kind is a media type.
type kind uint8

const (
	ndjson     kind = iota // events, one per line
	plainJSON              // one event
	arrowIPC               // record batches
	cloudEvent             // a CloudEvent in structured mode
	cloudBatch             // an array of them
)

// The media types that messages may have.
const (
	NDJSON          = "application/x-ndjson"
	JSON            = "application/json"
	ArrowStream     = "application/vnd.apache.arrow.stream"
	CloudEvent      = "application/cloudevents+json"
	CloudEventBatch = "application/cloudevents-batch+json"
)

// ContentType is the header that names a message's media type.
const ContentType = "Content-Type"

// maxHeader bounds the values of all headers together that say how a message is read.
const maxHeader = 2 << 10

// FormatOf reads a message's format from its headers: from Content-Type and, if they say that it
// is a CloudEvent in binary mode, from its attributes in ce- headers. header returns the value of
// a header, "" if it is absent. Without Content-Type a message is NDJSON. An error says what is
// not known or not allowed; the message is to become a Reject of Row -1 then.
func FormatOf(header func(name string) string) (Format, error) {
	text := header(ContentType)
	k, err := kindOf(text)
	switch {
	case k == cloudEvent || k == cloudBatch || k == arrowIPC:
		return Format{kind: k}, err
	case header(ceVersion) == "" && header(ceID) == "":
		return Format{kind: k}, err
	case err != nil:
		return Format{}, err
	case k == ndjson && text != "":
		return Format{}, fmt.Errorf("%s %s with ce- headers: a CloudEvent in binary mode is one event, %s", ContentType, NDJSON, JSON)
	}
	ce, err := binaryAttributes(header)
	if err != nil {
		return Format{}, err
	}
	return Format{kind: plainJSON, ce: ce}, nil
}

func kindOf(text string) (kind, error) {
	if text == "" || text == NDJSON { // by far the most, and not worth a parse
		return ndjson, nil
	}
	name, params, err := mime.ParseMediaType(text)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", ContentType, clip([]byte(text)), err)
	}
	if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") {
		return 0, fmt.Errorf("%s %s: the charset must be UTF-8", ContentType, clip([]byte(text)))
	}
	for k := ndjson; k <= cloudBatch; k++ {
		if name == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("%s %s is not known; there are %s, %s, %s, %s and %s", ContentType, clip([]byte(text)),
		NDJSON, JSON, ArrowStream, CloudEvent, CloudEventBatch)
}

// String is the media type.
func (k kind) String() string {
	return [...]string{NDJSON, JSON, ArrowStream, CloudEvent, CloudEventBatch}[k]
}

// String is the media type, and says if attributes of a CloudEvent come as headers.
func (f Format) String() string {
	if f.ce != nil {
		return f.kind.String() + " with ce- headers"
	}
	return f.kind.String()
}

// Header returns the headers that HeaderOf would find in a message of the format.
func (f Format) Header() map[string]string {
	switch {
	case f.ce != nil:
		return f.ce.header
	case f.kind == ndjson:
		return nil
	}
	return map[string]string{ContentType: f.kind.String()}
}

// HeaderOf returns those headers of a message that say how it is read, nil if it is NDJSON: what
// must go with its bytes wherever they go. Beyond 2 KiB it leaves out what comes last; FormatOf
// refuses such a message either way.
func HeaderOf(header func(name string) string) map[string]string {
	var out map[string]string
	size := 0
	for _, name := range [...]string{ContentType, ceVersion, ceID, ceSource, ceType, ceTime, "ce-subject", "ce-dataschema"} {
		v := header(name)
		if v == "" {
			continue
		}
		if size += len(v); size > maxHeader {
			break
		}
		if out == nil {
			out = make(map[string]string)
		}
		out[name] = v
	}
	if len(out) == 1 && out[ContentType] == NDJSON {
		return nil
	}
	return out
}

var errHeaders = errors.New("the ce- headers take more than 2 KiB")
