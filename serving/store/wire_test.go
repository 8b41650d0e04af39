package store_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/internal/faultproxy"
	"watershed/schemas"
	"watershed/serving/store"
)

// openThrough reaches the test's database through a proxy.
func openThrough(t *testing.T) (*store.DB, *faultproxy.Proxy) {
	t.Helper()
	c := devtest.SharedClickHouse(t)
	proxy, err := faultproxy.New(c.Addr())
	check(t, err)
	t.Cleanup(func() { check(t, proxy.Close()) })
	cfg := configOf(t, c)
	cfg.Addr = proxy.Addr()
	db, err := store.Open(t.Context(), cfg)
	check(t, err)
	t.Cleanup(func() { check(t, db.Close()) })
	return db, proxy
}

// Connections that are kept for the next insert may be broken by then. No block was sent on them.
func TestBrokenConnectionsAreReplaced(t *testing.T) {
	db, proxy := openThrough(t)
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	rec := states(t, p, some(1, 50))
	for seq := range uint64(3) {
		check(t, db.InsertSpeed(t.Context(), p, 1, schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: seq}}, rec))
		proxy.Reset()
		for proxy.Open() > 0 { // until all are
		}
	}
	conn := admin(t, devtest.SharedClickHouse(t))
	want := ask(t, conn, "SELECT toUInt64(3 * 50)")
	if got := ask(t, conn, "SELECT sum(flights) FROM "+p.ID()+"__speed"); !cmp.Equal(got, want) {
		t.Errorf("events are %v; want %v", got, want)
	}
}

// An insert whose context ends was certainly not carried out if its block had not been sent; else
// nobody knows.
func TestInsertWhoseContextEnds(t *testing.T) {
	db, proxy := openThrough(t)
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	rec := states(t, p, some(1, 50))
	insert := func(ctx context.Context) error {
		return db.InsertSpeed(ctx, p, 1, schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: 1}}, rec)
	}
	check(t, insert(t.Context())) // so that a connection is kept
	for _, c := range []struct {
		name    string
		begin   func() <-chan struct{} // what tells when to end the context
		unknown bool
	}{
		{"before", func() <-chan struct{} { c := make(chan struct{}); close(c); return c }, false},
		{"statement held", func() <-chan struct{} { return proxy.Once("__speed_into", 0, faultproxy.HoldRequests) }, false},
		{"block held", func() <-chan struct{} { return proxy.Once("__speed_into", 1, faultproxy.HoldRequests) }, true},
		{"answer held", func() <-chan struct{} { return proxy.Once("__speed_into", 1, faultproxy.HoldAnswers) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hit, done := c.begin(), make(chan error, 1)
			if c.name == "before" {
				cancel()
			}
			go func() { done <- insert(ctx) }()
			<-hit
			cancel()
			err := <-done
			var e *store.Error
			if !errors.As(err, &e) || e.Unknown() != c.unknown || e.Code() != 0 || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v; want an error without an answer, unknown: %t", err, c.unknown)
			}
			proxy.Set(faultproxy.Pass)
			check(t, insert(t.Context()))
		})
	}
}
