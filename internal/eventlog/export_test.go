package eventlog

import (
	"context"

	"watershed/schemas"
)

// OnStep has f called between the steps of Anew.
func (l *Log) OnStep(f func(step string)) { l.step = f }

// PublishFirstCut is PublishCut of a process that has looked at a log without cuts before Anew began.
func (l *Log) PublishFirstCut(ctx context.Context, definitions schemas.Set) (schemas.Cut, error) {
	cut := schemas.Cut{Number: 1, Definitions: definitions}
	err := l.publishNumbered(ctx, &cut)
	return cut, err
}
