package exact

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
)

var errLost = errors.New("the answer was lost")

// An unreliable sink is a real one over a bad line: now and then the answer to a write is lost,
// and with it, half of the time, the write. Once severed nothing gets through any more.
type unreliable struct {
	*store.DB
	every int // one write in so many; 0: none
	seed  uint64

	mu      sync.Mutex // guards what follows
	r       *rand.Rand
	severed bool
}

func (u *unreliable) sever() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.severed = true
}

// draw says whether a write arrives, and whether its answer does.
func (u *unreliable) draw() (arrives, answered bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.r == nil {
		u.r = rand.New(rand.NewPCG(u.seed, 4))
	}
	switch {
	case u.severed:
		return false, false
	case u.every > 0 && u.r.IntN(u.every) == 0:
		return u.r.IntN(2) == 0, false
	}
	return true, true
}

func (u *unreliable) write(do func() error) error {
	arrives, answered := u.draw()
	if arrives {
		if err := do(); err != nil || answered {
			return err
		}
	}
	return errLost
}

// What has been sent goes its way, even if its sender is gone: a stop is the sender's alone. (The
// driver ends a cancelled query by resetting its connection, and that can end the embedded
// ClickHouse as a whole.)
func (u *unreliable) EnsurePlans(ctx context.Context, plans []*view.Plan, fresh bool) error {
	return u.write(func() error { return u.DB.EnsurePlans(context.WithoutCancel(ctx), plans, fresh) })
}

func (u *unreliable) PublishViews(ctx context.Context, plans []*view.Plan) error {
	return u.write(func() error { return u.DB.PublishViews(context.WithoutCancel(ctx), plans) })
}

func (u *unreliable) Term(ctx context.Context, role string) (uint64, error) {
	return u.DB.Term(context.WithoutCancel(ctx), role)
}

func (u *unreliable) TakeOver(ctx context.Context, role string, term uint64) error {
	return u.write(func() error { return u.DB.TakeOver(context.WithoutCancel(ctx), role, term) })
}

func (u *unreliable) Positions(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error) {
	return u.DB.Positions(context.WithoutCancel(ctx), plans)
}

func (u *unreliable) InsertSpeed(ctx context.Context, p *view.Plan, term uint64, mark schemas.Mark, states arrow.Record) error {
	return u.write(func() error { return u.DB.InsertSpeed(context.WithoutCancel(ctx), p, term, mark, states) })
}

func (u *unreliable) SavePositions(ctx context.Context, term uint64, marks map[string]schemas.Mark) error {
	return u.write(func() error { return u.DB.SavePositions(context.WithoutCancel(ctx), term, marks) })
}
