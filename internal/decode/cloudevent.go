package decode

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"watershed/schemas"
)

// The headers of a CloudEvent in binary mode that are looked at.
const (
	ceVersion = "ce-specversion"
	ceID      = "ce-id"
	ceSource  = "ce-source"
	ceType    = "ce-type"
	ceTime    = "ce-time"
)

// attributes are the context attributes of a CloudEvent.
type attributes struct {
	version, id, source, typ, time, content []byte

	header map[string]string // binary mode: that they came in
	seen   map[string]bool   // structured mode: that have come, data among them
}

// binaryAttributes reads the attributes of a CloudEvent in binary mode: percent-encoded, as the
// HTTP binding, which NATS's follows, has them.
func binaryAttributes(header func(string) string) (*attributes, error) {
	a := &attributes{header: HeaderOf(header)}
	for _, h := range [...]struct {
		name string
		to   *[]byte
	}{{ceVersion, &a.version}, {ceID, &a.id}, {ceSource, &a.source}, {ceType, &a.typ}, {ceTime, &a.time}} {
		v := header(h.name)
		if v != a.header[h.name] {
			return nil, errHeaders
		}
		v, err := url.PathUnescape(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("%s: not UTF-8", h.name)
		}
		if v != "" {
			*h.to = []byte(v)
		}
	}
	return a, a.check("ce-")
}

// check says what a CloudEvent lacks. prefix is put before the names of attributes.
func (a *attributes) check(prefix string) error {
	switch {
	case len(a.version) == 0:
		return fmt.Errorf("%sspecversion: missing", prefix)
	case string(a.version) != "1.0":
		return fmt.Errorf("%sspecversion: want 1.0, got %s", prefix, clip(a.version))
	case len(a.id) == 0:
		return fmt.Errorf("%sid: missing", prefix)
	case len(a.source) == 0:
		return fmt.Errorf("%ssource: missing", prefix)
	case bytes.ContainsAny(a.source, " \t\r\n"):
		return fmt.Errorf("%ssource: not a URI reference: %s", prefix, clip(a.source))
	case len(a.typ) == 0:
		return fmt.Errorf("%stype: missing", prefix)
	}
	return nil
}

func (a *attributes) reset() {
	a.version, a.id, a.source, a.typ, a.time, a.content = a.version[:0], a.id[:0], a.source[:0], a.typ[:0], a.time[:0], a.content[:0]
	clear(a.seen)
}

// fill gives the row just read the id and the time of its CloudEvent, where its data has none.
func (d *Decoder) fill(a *attributes) error {
	if c := &d.cols[d.id]; c.seen != d.line {
		if c.kind != schemas.String {
			return fmt.Errorf("field %s: missing, and it is %s: the id of a CloudEvent, with its source, is text", c.name, c.typ)
		}
		// Only both together are unique. A source has no space, so no two pairs give the same text.
		d.scratch = append(append(append(d.scratch[:0], a.source...), ' '), a.id...)
		c.text.append(d.scratch)
		c.seen = d.line
		d.bytes += len(d.scratch)
	}
	if c := &d.cols[d.time]; c.seen != d.line && len(a.time) > 0 {
		v, ok := d.day.parseTime(a.time)
		if !ok || a.time[10] != 'T' || v < minMicros || v > maxMicros {
			return fmt.Errorf("time: want one of RFC 3339 in the years 1900 to 2299, got %s", clip(a.time))
		}
		c.ints = append(c.ints, v)
		c.seen = d.line
	}
	return nil
}

// envelope reads the CloudEvent at i in structured mode.
func (d *Decoder) envelope(s []byte, i int) (next int, err error) {
	if i == len(s) || s[i] != '{' {
		return 0, fmt.Errorf("not a CloudEvent, which is a JSON object: %s", excerpt(s, i))
	}
	a := &d.envelopes
	a.reset()
	if i = skip(s, i+1); i < len(s) && s[i] == '}' {
		return 0, a.checkEnvelope()
	}
	for {
		name, at, err := d.str(s, i)
		if err != nil {
			return 0, fmt.Errorf("not JSON: an attribute's name must be here: %w", err)
		}
		if i = skip(s, at); i == len(s) || s[i] != ':' {
			return 0, fmt.Errorf("not JSON: %s where ':' must be", excerpt(s, i))
		}
		i = skip(s, i+1)
		known, to := a.named(name)
		if known != "" && a.seen[known] {
			return 0, fmt.Errorf("%s: comes twice", known)
		}
		switch {
		case known == "data_base64":
			return 0, errors.New("data_base64: the event must be data, a JSON object")
		case known == "data":
			if i, err = d.object(s, i); err != nil {
				return 0, fmt.Errorf("data: %w", err)
			}
		case known != "":
			if i, err = d.attribute(to, s, i); err != nil {
				return 0, fmt.Errorf("%s: %w", known, err)
			}
		default: // an extension, or an attribute that nothing here depends on
			extension := clip(name)
			if i, err = d.skipValue(s, i, maxDepth); err != nil {
				return 0, fmt.Errorf("attribute %s: %w", extension, err)
			}
		}
		if known != "" {
			a.seen[known] = true
		}
		switch i = skip(s, i); {
		case i < len(s) && s[i] == ',':
			i = skip(s, i+1)
		case i < len(s) && s[i] == '}':
			return i + 1, a.checkEnvelope()
		default:
			return 0, fmt.Errorf("not JSON: %s where ',' or '}' must be", excerpt(s, i))
		}
	}
}

// named returns the attribute of that name as a constant and where its text goes; nothing for an
// extension.
func (a *attributes) named(name []byte) (known string, to *[]byte) {
	switch string(name) {
	case "specversion":
		return "specversion", &a.version
	case "id":
		return "id", &a.id
	case "source":
		return "source", &a.source
	case "type":
		return "type", &a.typ
	case "time":
		return "time", &a.time
	case "datacontenttype":
		return "datacontenttype", &a.content
	case "data":
		return "data", nil
	case "data_base64":
		return "data_base64", nil
	}
	return "", nil
}

// checkEnvelope says what a CloudEvent in structured mode lacks.
func (a *attributes) checkEnvelope() error {
	if err := a.check(""); err != nil {
		return err
	}
	if !a.seen["data"] {
		return errors.New("data: missing: the event must be data, a JSON object")
	}
	if len(a.content) > 0 && !isJSON(string(a.content)) {
		return fmt.Errorf("datacontenttype: the event must be JSON, not %s", clip(a.content))
	}
	return nil
}

// attribute reads a text that is not empty. null is as if it were not there.
func (d *Decoder) attribute(to *[]byte, s []byte, i int) (next int, err error) {
	if literal(s, i, "null") {
		return i + 4, nil
	}
	text, next, err := d.str(s, i)
	if err == nil && len(text) == 0 {
		err = errors.New("empty")
	}
	*to = append(*to, text...)
	return next, err
}

func isJSON(mediaType string) bool {
	name, _, err := mime.ParseMediaType(mediaType)
	return err == nil && (name == JSON || name == "text/json" || strings.HasSuffix(name, "+json"))
}

// cloudEvent appends the event of the CloudEvent at i, or changes nothing and returns why it does
// not fit. One that is alone has nothing behind it.
func (d *Decoder) cloudEvent(s []byte, i int, alone bool, seq uint64, row int) (next int, err error) {
	d.line++
	bytesBefore := d.bytes
	next, err = d.envelope(s, i)
	if err == nil && alone {
		err = end(s, next)
	}
	if err == nil {
		err = d.fill(&d.envelopes)
	}
	if err == nil {
		err = d.complete()
	}
	if err = d.finish(err, next-i, seq, row); err != nil {
		d.bytes = bytesBefore
	}
	return next, err
}

// element returns an element of a JSON array.
func element(payload []byte, row int) []byte {
	var d Decoder
	i := skip(payload, 0)
	if i == len(payload) || payload[i] != '[' {
		return nil
	}
	for ; ; row-- {
		i = skip(payload, i+1)
		next, err := d.skipValue(payload, i, 2*maxDepth)
		if err != nil {
			return nil
		}
		if row == 0 {
			return payload[i:next]
		}
		if i = skip(payload, next); i == len(payload) || payload[i] != ',' {
			return nil
		}
	}
}

// batch appends the events of an array of CloudEvents. One that is not JSON to its end is refused
// as a whole.
func (d *Decoder) batch(payload []byte, seq uint64) []schemas.Reject {
	whole := func(reason string) []schemas.Reject {
		return []schemas.Reject{d.reject(payload, seq, wholeMessage, reason, Format{kind: cloudBatch})}
	}
	i := skip(payload, 0)
	if i == len(payload) || payload[i] != '[' {
		return whole("not a batch of CloudEvents, which is a JSON array: " + excerpt(payload, i))
	}
	last, err := d.skipValue(payload, i, 2*maxDepth)
	if err == nil {
		err = end(payload, last)
	}
	if err != nil {
		return whole(err.Error())
	}
	if i = skip(payload, i+1); payload[i] == ']' {
		return whole("message without an event")
	}
	var rejects []schemas.Reject
	for row := 0; ; row++ {
		next, err := d.cloudEvent(payload, i, false, seq, row)
		if err != nil {
			if next, _ = d.skipValue(payload, i, 2*maxDepth); len(rejects) == cap(rejects) {
				rejects = slices.Grow(rejects, max(len(rejects), 1))
			}
			rejects = append(rejects, d.reject(payload[i:next], seq, row, err.Error(), Format{kind: cloudEvent}))
		}
		if i = skip(payload, next); payload[i] == ']' {
			return rejects
		}
		i = skip(payload, i+1)
	}
}
