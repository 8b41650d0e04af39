package eventlog

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// FuzzMeta holds metaOf against the library: what it reads is what the library reads.
func FuzzMeta(f *testing.F) {
	for _, reply := range []string{
		"$JS.ACK.WATERSHED.c.1.42.41.1700000000123456789.7", "$JS.ACK.S.c.1.9223372036854775807.1.1.0", "$JS.ACK.S.c.1.9223372036854775808.1.1.0",
		"$JS.ACK.domain.hash.S.c.1.42.41.1700000000123456789.7.token", "$JS.ACK.S.c.1.42.41.1700000000123456789", "$JS.ACK.S.c.1.42.-1.5.7",
		"$JS.ACK.S.c.1.42..5.7", "$JS.ACK.S.c.1.42.1.5.7.", "$JS.ACK.S.c.1.42.1.5.x", "", "_INBOX.x",
	} {
		f.Add(reply)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		var got jetstream.MsgMetadata
		if !metaOf(reply, &got) {
			return
		}
		msg := nats.Msg{Reply: reply, Sub: new(nats.Subscription)}
		want, err := msg.Metadata()
		if err != nil {
			t.Fatalf("%q: the library refuses it: %v", reply, err)
		}
		say := func(stream, consumer, pending uint64, at int64) string {
			return fmt.Sprint(stream, consumer, pending, at)
		}
		if g, w := say(got.Sequence.Stream, got.Sequence.Consumer, got.NumPending, got.Timestamp.UnixNano()),
			say(want.Sequence.Stream, want.Sequence.Consumer, want.NumPending, want.Timestamp.UnixNano()); g != w {
			t.Errorf("%q: got %s; the library reads %s", reply, g, w)
		}
	})
}

// TestMetaOfTheServersReplies: messages of a server are read without the library.
func TestMetaOfTheServersReplies(t *testing.T) {
	var meta jetstream.MsgMetadata
	if !metaOf("$JS.ACK.WATERSHED.consumer.1.42.41.1700000000123456789.7", &meta) || meta.Sequence.Stream != 42 || meta.Sequence.Consumer != 41 ||
		meta.NumPending != 7 || meta.Timestamp.UnixNano() != 1700000000123456789 {
		t.Errorf("got %+v", meta)
	}
}

// TestPlainMessagesNeedNoHeaders: what isPlain says is plain has no header that is looked up.
func TestPlainMessagesNeedNoHeaders(t *testing.T) {
	for _, test := range []struct {
		header nats.Header
		plain  bool
	}{
		{nil, true},
		{nats.Header{"Content-Type": {"application/x-ndjson"}}, true},
		{nats.Header{"Content-Type": {"application/x-ndjson"}, "Nats-Expected-Stream": {"S"}, "Nats-Msg-Id": {"1"}}, true},
		{nats.Header{"Content-Type": {"application/json"}}, false},
		{nats.Header{"Content-Type": {}}, false},
		{nats.Header{"content-type": {"application/json"}}, false},
		{nats.Header{"Nats-Msg-Id": {"1"}, "ce-id": {"1"}}, false},
		{nats.Header{"Content-Type": {"application/x-ndjson"}, loggedHeader: {"2026-01-01T00:00:00Z"}}, false},
	} {
		if got := isPlain(test.header); got != test.plain {
			t.Errorf("%v: got %t", test.header, got)
		}
	}
}
