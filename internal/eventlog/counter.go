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
	return l.count(ctx, counter, func(stored uint64) uint64 { return max(stored, floor) + 1 })
}

// Last is the number that Next has returned last of a counter; 0 at first.
func (l *Log) Last(ctx context.Context, counter string) (uint64, error) {
	return l.raise(ctx, counter, 0)
}

// raise raises the counter of that name to at least floor, and returns it.
func (l *Log) raise(ctx context.Context, counter string, floor uint64) (uint64, error) {
	return l.count(ctx, counter, func(stored uint64) uint64 { return max(stored, floor) })
}

// count replaces a counter's value, 0 at first, by one that is not smaller, and returns that.
func (l *Log) count(ctx context.Context, counter string, next func(stored uint64) uint64) (uint64, error) {
	for {
		n, err := l.tryCount(ctx, counter, next)
		if err == nil {
			return n, nil
		}
		if !isWrongLast(err) {
			return 0, fmt.Errorf("counter %s: %w", counter, classify(err))
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("counter %s: %w", counter, err)
		}
	}
}

func (l *Log) tryCount(ctx context.Context, counter string, next func(stored uint64) uint64) (uint64, error) {
	var stored, revision uint64
	entry, err := l.kv.Get(ctx, counter)
	if err == nil {
		revision = entry.Revision()
		stored, err = strconv.ParseUint(string(entry.Value()), 10, 64)
	} else if errors.Is(err, jetstream.ErrKeyNotFound) {
		err = nil
	}
	if err != nil {
		return 0, err
	}
	n := next(stored)
	if n == stored {
		return n, nil
	}
	// If we stop behind this line a number may be used up that nobody has, which is allowed.
	value := []byte(strconv.FormatUint(n, 10))
	if revision == 0 {
		_, err = l.kv.Create(ctx, counter, value)
	} else {
		_, err = l.kv.Update(ctx, counter, value, revision)
	}
	return n, err
}

// isWrongLast reports that a write was refused because another came before it.
func isWrongLast(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
