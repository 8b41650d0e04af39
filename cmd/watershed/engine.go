package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"watershed/batch"
	"watershed/serving/store"
)

// Who computes slices.
const (
	engineGo         = "go"
	engineClickHouse = "clickhouse"
)

// engineFlag adds the flag that names who computes slices.
func engineFlag(f *pflag.FlagSet) *string {
	return f.String("engine", engineGo, "who computes slices from history: go (this process) or clickhouse (which must be able to read history, see --clickhouse-history); both give the same")
}

// engine makes who computes slices; nil: the fold of this process. What ClickHouse computes goes into db.
func (a *app) engine(name string, db *store.DB) (batch.Engine, error) {
	switch name {
	case engineGo:
		return nil, nil
	case engineClickHouse:
	default:
		return nil, usage("--engine %q: want %s or %s", name, engineGo, engineClickHouse)
	}
	at := store.HistoryAt{Root: a.cfg.ClickHouseHistory, Cluster: a.cfg.ClickHouseCluster}
	if at.Root == "" {
		var err error
		if at.Root, err = filepath.Abs(a.cfg.History); err != nil {
			return nil, fmt.Errorf("history directory: %w", err)
		}
	}
	if err := at.Validate(); err != nil {
		return nil, usage("%v: set --clickhouse-history", err)
	}
	return db.Pushdown(at)
}
