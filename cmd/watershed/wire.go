package main

import (
	"context"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/batch/history"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
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

// speedSink is the store as the speed layer writes it. It gives a hint after what it stored, so that requests that
// wait for a position look at once.
type speedSink struct {
	*store.DB
	log *eventlog.Log
}

func (s speedSink) InsertSpeed(ctx context.Context, p *view.Plan, term uint64, mark schemas.Mark, states arrow.Record) error {
	return s.stored(s.DB.InsertSpeed(ctx, p, term, mark, states))
}

func (s speedSink) SavePositions(ctx context.Context, term uint64, marks map[string]schemas.Mark) error {
	return s.stored(s.DB.SavePositions(ctx, term, marks))
}

func (s speedSink) stored(err error) error {
	if err == nil {
		s.log.Stored()
	}
	return err
}
