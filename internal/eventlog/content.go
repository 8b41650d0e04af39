package eventlog

import (
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/decode"
	"watershed/internal/traces"
)

// headerOf looks headers up as decode.FormatOf wants them. NATS tells capitals apart; producers
// write Content-Type in more than one way, so others than the usual one are found too. Of several
// the first in the order of their bytes counts: every reader must take the same.
func headerOf(h nats.Header) func(name string) string {
	usual := usualHeaders(h)
	return func(name string) string {
		if v, ok := h[name]; ok && len(v) > 0 {
			return v[0]
		}
		if usual {
			return ""
		}
		first, value := "", ""
		for key, v := range h {
			if len(key) == len(name) && len(v) > 0 && strings.EqualFold(key, name) && (first == "" || key < first) {
				first, value = key, v[0]
			}
		}
		return value
	}
}

// usualHeaders tells whether a message has no headers but Content-Type, that of its trace and NATS's own, as nearly all
// have: going through a map for each name that is absent took a tenth of a worker's time where each
// event was a message.
func usualHeaders(h nats.Header) bool {
	for key := range h {
		if key != decode.ContentType && key != traces.Header && !strings.HasPrefix(key, "Nats-") {
			return false
		}
	}
	return true
}

// isPlain tells whether a message has no headers but those that a Publisher sets, which say nothing that their absence does
// not: as nearly all messages. Looking for the others took a tenth of a worker's time where each event was a message.
func isPlain(h nats.Header) bool {
	known := 0
	if v, ok := h[decode.ContentType]; ok {
		if len(v) != 1 || v[0] != decode.NDJSON {
			return false
		}
		known++
	}
	for _, name := range [...]string{jetstream.ExpectedStreamHeader, jetstream.MsgIDHeader} {
		if known == len(h) {
			break
		}
		if _, ok := h[name]; ok {
			known++
		}
	}
	return known == len(h)
}

// noHeader is headerOf a message that is plain.
func noHeader(string) string { return "" }

// setContent sets the headers that say how a message is read, and returns the bytes they take.
// None means NDJSON, whatever stood there.
func setContent(h nats.Header, content map[string]string) (size int) {
	if len(content) == 0 {
		return 0
	}
	h.Del(decode.ContentType)
	for name, v := range content {
		h.Set(name, v)
		size += len(name) + len(v) + len(": \r\n")
	}
	return size
}

// contentOnly returns a message's headers if there is room for no others, nil if it needs none.
// As the message came with them, they fit.
func contentOnly(content map[string]string) nats.Header {
	if len(content) == 0 {
		return nil
	}
	h := nats.Header{}
	setContent(h, content)
	return h
}

func contentSize(h nats.Header) (size int) {
	for name, v := range h {
		size += len(name) + len(strings.Join(v, "")) + len(": \r\n")
	}
	return size
}
