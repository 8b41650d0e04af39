package main

import (
	"context"

	"watershed/batch/history"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/speed"
)

// The layers do not know each other: each says what it needs as a small interface. Here the
// log is made to fit them.

// speedLog is the log as the speed layer reads it.
type speedLog struct {
	*eventlog.Log
	traced int // messages with a trace that a chunk names
}

func (l speedLog) Chunks(ctx context.Context, after schemas.Position) (speed.Source, error) {
	return l.Log.Chunks(ctx, after, eventlog.ChunkOptions{MaxRows: speed.ChunkRows, Traced: l.traced})
}

// archiverSource opens the log as the archiver reads it, with the cut that holds there.
func archiverSource(log *eventlog.Log) history.OpenSource {
	return func(ctx context.Context, after schemas.Position, types ...string) (history.Source, schemas.Cut, error) {
		cut, _, err := log.CutFor(ctx, after.Seq)
		if err != nil {
			return nil, cut, err
		}
		chunks, err := log.Chunks(ctx, after, eventlog.ChunkOptions{Types: types})
		if err != nil {
			return nil, cut, err
		}
		return chunks, cut, nil
	}
}
