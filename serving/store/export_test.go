package store

import "time"

// SetPatience sets how long deletions of bookkeeping are waited for.
func (db *DB) SetPatience(d time.Duration) { db.patience = d }
