package eventlog

import (
	"context"

	"watershed/internal/traces"
)

// TraceOf is the traceparent header of the message at a sequence; empty if it has none, or cannot be read now: nothing
// depends on it.
func (l *Log) TraceOf(ctx context.Context, seq uint64) string {
	msg, err := l.stream.GetMsg(ctx, seq)
	if err != nil {
		return ""
	}
	return headerOf(msg.Header)(traces.Header)
}
