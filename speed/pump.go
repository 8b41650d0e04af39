package speed

import (
	"context"

	"watershed/schemas"
)

// A pump reads a source in a goroutine of its own, one chunk ahead, so that a lane can wait
// for a chunk and for its flush at the same time.
type pump struct {
	chunks chan result
	cancel context.CancelFunc
	done   chan struct{}
}

type result struct {
	chunk *schemas.Chunk
	err   error
}

func startPump(ctx context.Context, src Source) *pump {
	ctx, cancel := context.WithCancel(ctx)
	p := &pump{chunks: make(chan result), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for {
			c, err := src.Next(ctx)
			select {
			case p.chunks <- result{c, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *pump) next(ctx context.Context) result {
	select {
	case r := <-p.chunks:
		return r
	case <-ctx.Done():
		return result{err: ctx.Err()}
	}
}

// stop ends the goroutine and waits for it.
func (p *pump) stop() {
	p.cancel()
	<-p.done
}
