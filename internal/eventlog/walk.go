package eventlog

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// walk hands the messages that a stream holds behind a sequence to fn, in their order, until it
// has been level with the stream or fn returns an error. With subjects it hands over those that
// match one of them. A message lost between the server and us is an error.
func (l *Log) walk(ctx context.Context, s jetstream.Stream, after uint64, subjects []string, fn func(jetstream.Msg, *jetstream.MsgMetadata) error) error {
	cons, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Description:       "Watershed walk",
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       after + 1,
		FilterSubjects:    subjects,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: idle,
	})
	if err != nil {
		return err
	}
	// If we stop here, the server forgets the consumer after a while.
	defer func() {
		end, cancel := l.whileConnected(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = s.DeleteConsumer(end, cons.CachedInfo().Name)
	}()
	if cons.CachedInfo().NumPending == 0 {
		return nil
	}
	messages, err := cons.Messages(jetstream.PullMaxBytes(max(pullBytes, 2*int(l.conn.MaxPayload()))), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for n := uint64(1); ; n++ {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != n {
			return fmt.Errorf("%w, before message %d of stream %s", errLost, meta.Sequence.Stream, meta.Stream)
		}
		if err := fn(msg, meta); err != nil {
			return err
		}
		if meta.NumPending == 0 {
			return nil
		}
	}
}
