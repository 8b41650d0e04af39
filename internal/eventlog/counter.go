package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
)

const countersBytes = 1 << 20 // a bucket of a few numbers

func (l *Log) counters(ctx context.Context) (jetstream.KeyValue, error) {
	bucket := l.cfg.Stream + "_counters"
	kv, err := l.js.KeyValue(ctx, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucket, Description: "Watershed: terms, flips and other numbers that never go back",
			History: 1, Storage: jetstream.FileStorage, Replicas: l.cfg.Replicas, MaxBytes: countersBytes,
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = l.js.KeyValue(ctx, bucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return kv, nil
}

// Next raises the counter of that name to max(its value, floor)+1 and returns that. No two
// calls return the same number, whichever process makes them. An error may have used a number up.
func (l *Log) Next(ctx context.Context, counter string, floor uint64) (uint64, error) {
	for {
		n, err := l.next(ctx, counter, floor)
		if !isWrongLast(err) {
			if err != nil {
				return 0, fmt.Errorf("counter %s: %w", counter, classify(err))
			}
			return n, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("counter %s: %w", counter, err)
		}
	}
}

func (l *Log) next(ctx context.Context, counter string, floor uint64) (uint64, error) {
	entry, err := l.kv.Get(ctx, counter)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		_, err := l.kv.Create(ctx, counter, []byte(strconv.FormatUint(floor+1, 10)))
		return floor + 1, err
	}
	if err != nil {
		return 0, err
	}
	stored, err := strconv.ParseUint(string(entry.Value()), 10, 64)
	if err != nil {
		return 0, err
	}
	n := max(stored, floor) + 1
	// If we stop behind this line the number is used up and nobody has it, which is allowed.
	_, err = l.kv.Update(ctx, counter, []byte(strconv.FormatUint(n, 10)), entry.Revision())
	return n, err
}

// isWrongLast reports that a write was refused because another came before it.
func isWrongLast(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
