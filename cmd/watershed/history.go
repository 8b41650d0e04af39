package main

import (
	"context"

	"watershed/batch/history"
	"watershed/schemas"
)

// historyStatus reads how far the tables of the defined types are. A type whose table the
// archiver has not made yet has nothing.
func (a *app) historyStatus(ctx context.Context, set *schemas.Set, last uint64) ([]historyStatus, error) {
	var out []historyStatus
	for _, ev := range set.Events {
		h := historyStatus{Type: ev.Name, Lag: last}
		there, err := history.Exists(a.cfg.History, ev.Name)
		if err != nil {
			return nil, err
		}
		if there {
			table, err := history.Open(ctx, a.cfg.History, ev)
			if err != nil {
				return nil, err
			}
			snap, err := table.Snapshot(ctx)
			if err != nil {
				return nil, err
			}
			h.Files, h.Events, h.Position = len(snap.Files), snap.Rows(), uint64(snap.Txns[a.appID()])
			h.Lag = last - min(last, h.Position)
		}
		out = append(out, h)
	}
	return out, nil
}
