package store

import "context"

// Query runs a query as the writers' user, who may read files too. It is for questions of this
// program's own, never for those of others: they go through a Reader.
func (db *DB) Query(ctx context.Context, q Query) (*Rows, error) {
	return (&Reader{db.client}).Query(ctx, q)
}
