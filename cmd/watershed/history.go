package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"watershed/batch/history"
	"watershed/schemas"
	"watershed/serving/api"
)

// An archive reads how far history is. Tables stay open, so that only new commits are read.
type archive struct {
	a *app

	mu     sync.Mutex // guards what follows
	cut    uint64     // whose definitions the tables were opened with
	tables map[string]*history.Table
}

// status says how far the tables of a cut's types are; nothing where there is no history to be
// read, nil for all. A type whose table the archiver has not made yet has nothing.
func (h *archive) status(ctx context.Context, cut *schemas.Cut, failing map[string]error) ([]api.TypeStatus, error) {
	if _, err := os.Stat(h.a.cfg.History); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cut != cut.Number || h.tables == nil {
		h.cut, h.tables = cut.Number, make(map[string]*history.Table)
	}
	out := make([]api.TypeStatus, 0, len(cut.Definitions.Events))
	for _, ev := range cut.Definitions.Events {
		t := api.TypeStatus{Type: ev.Name}
		if err := failing[ev.Name]; err != nil {
			t.Failing = err.Error()
		}
		table, err := h.table(ctx, ev)
		if err != nil {
			return nil, err
		}
		if table != nil {
			snap, err := table.Snapshot(ctx)
			if err != nil {
				return nil, err
			}
			t.Files, t.Events, t.Position = len(snap.Files), snap.Rows(), uint64(snap.Txns[h.a.appID()])
		}
		out = append(out, t)
	}
	return out, nil
}

// table opens the table of a type; nil if there is none. The caller has h.mu.
func (h *archive) table(ctx context.Context, ev *schemas.Event) (*history.Table, error) {
	if t := h.tables[ev.Name]; t != nil {
		return t, nil
	}
	there, err := history.Exists(h.a.cfg.History, ev.Name)
	if err != nil || !there {
		return nil, err
	}
	t, err := history.Open(ctx, h.a.cfg.History, ev)
	if err != nil {
		return nil, err
	}
	h.tables[ev.Name] = t
	return t, nil
}
