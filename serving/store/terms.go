package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"watershed/internal/crash"
)

// takeOverTimeout bounds the wait for what older terms have running. A killed insert ends at
// its next block.
const takeOverTimeout = 30 * time.Second

// Term is the newest term of a role; 0 when it never had one.
func (db *DB) Term(ctx context.Context, role string) (uint64, error) {
	got, err := rows[struct {
		Term uint64 `ch:"term"`
	}](ctx, db.client, "SELECT max(term) AS term FROM "+db.name("terms")+" WHERE role = "+literal(role))
	if err != nil || len(got) != 1 {
		return 0, wrapf(err, "read the term of %s", role)
	}
	return got[0].Term, nil
}

// TakeOver makes term the newest of its role. When it returns, no write of an older term is
// running, and none can succeed any more: what a reader then finds is all there will ever be
// of them. It fails with a Fenced error if the role has a newer term already.
func (db *DB) TakeOver(ctx context.Context, role string, term uint64) error {
	newest, err := db.Term(ctx, role)
	if err != nil {
		return err
	}
	if newest > term {
		return fmt.Errorf("take over %s: %w", role,
			&Error{code: codeThrowIf, sent: true, message: fmt.Sprintf("%sterm %d is older than %d", fenceMark, term, newest)})
	}
	b := block{rows: 1}
	b.add("role", []string{role})
	b.constant("term", term)
	if err := db.insertUnfenced(ctx, "terms", &b); err != nil {
		return fmt.Errorf("take over %s: %w", role, err)
	}
	crash.At("store.term-inserted")
	// If we stop here, or the insert's outcome is unknown, older terms are fenced or they are
	// not; whoever takes over next has a newer term and does all of this again.
	//
	// A block that passed its fence before our term was there is written by a query that is in
	// the list of processes until it has ended. A block that arrives later is refused. So queries
	// that still wait for their block need not end, and may not: a client that was stopped between
	// an insert's statement and its block holds the query for minutes, and killing does not wake it.
	ctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		older, err := db.running(ctx, role, term)
		if err != nil {
			return fmt.Errorf("take over %s: end older writes: %w", role, err)
		}
		if len(older) == 0 {
			crash.At("store.taken-over")
			return nil
		}
		db.logger.Info("ending writes of older terms", "role", role, "term", term, "writes", len(older))
		for _, id := range older {
			kill := "KILL QUERY WHERE query_id = " + literal(id) + " ASYNC"
			if err := db.exec(ctx, kill); err != nil {
				return fmt.Errorf("take over %s: end older writes: %w", role, err)
			}
			crash.At("store.write-killed")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("take over %s: writes of older terms are still running: %w", role, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// running lists the writes of terms older than term that ClickHouse has not ended, and that may have
// passed the fence: rows count as written before they come to a materialized view
// (TestRowsCountAsWrittenBeforeTheFence).
func (db *DB) running(ctx context.Context, role string, term uint64) ([]string, error) {
	prefix := db.idPrefix(role)
	got, err := rows[struct {
		ID string `ch:"query_id"`
	}](ctx, db.client, "SELECT query_id FROM system.processes WHERE startsWith(query_id, "+literal(prefix)+") AND NOT (query_kind = 'Insert' AND written_rows = 0 AND read_rows = 0)")
	if err != nil {
		return nil, err
	}
	var older []string
	for _, q := range got {
		of, _, _ := strings.Cut(strings.TrimPrefix(q.ID, prefix), "/")
		if n, err := strconv.ParseUint(of, 10, 64); err == nil && n < term {
			older = append(older, q.ID)
		}
	}
	return older, nil
}

// wrapf adds what was being done to an error, and leaves nil alone.
func wrapf(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
