package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"watershed/schemas"
	"watershed/schemas/view"
)

// A status is the state of everything, as seen from the engines themselves.
type status struct {
	Log struct {
		First       uint64    `json:"first"`
		Last        uint64    `json:"last"`
		Messages    uint64    `json:"messages"`
		Bytes       uint64    `json:"bytes"`
		MaxBytes    int64     `json:"max_bytes"`
		DeadLetters uint64    `json:"dead_letters"`
		Created     time.Time `json:"created"`
	} `json:"log"`
	Cut     uint64          `json:"cut"`
	Live    schemas.Live    `json:"live"`
	Plans   []planStatus    `json:"plans"`
	History []historyStatus `json:"history"`
}

// planStatus says how far a plan's states reach.
type planStatus struct {
	View     string `json:"view"`
	Plan     string `json:"plan"`
	Epoch    uint64 `json:"epoch"`
	Position uint64 `json:"position"`
	Lag      uint64 `json:"lag"` // messages of the log that are not in it
	Covered  bool   `json:"covered"`
}

// historyStatus says how far a type's table reaches.
type historyStatus struct {
	Type     string `json:"type"`
	Files    int    `json:"files"`
	Events   int64  `json:"events"`
	Position uint64 `json:"position"`
	Lag      uint64 `json:"lag"`
}

func (a *app) statusCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show how far log, views and history are",
		Example: "  watershed status --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer e.close()
			s, err := a.status(cmd.Context(), e)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(s)
			}
			return a.printStatus(s)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) status(ctx context.Context, e *engines) (*status, error) {
	s := &status{}
	info, err := e.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	l := &s.Log
	l.First, l.Last, l.Messages, l.Bytes, l.MaxBytes = info.First, info.Last, info.Messages, info.Bytes, info.MaxBytes
	l.DeadLetters, l.Created = info.DeadLetters, info.Created
	if s.Live, err = e.db.Live(ctx); err != nil {
		return nil, err
	}
	cut, ok, err := e.log.LastCut(ctx)
	if err != nil || !ok {
		return s, err
	}
	s.Cut = cut.Number
	plans, err := view.CompileSet(&cut.Definitions)
	if err != nil {
		return nil, fmt.Errorf("definitions of cut %d: %w", cut.Number, err)
	}
	marks, err := e.db.Positions(ctx, plans)
	if err != nil {
		return nil, err
	}
	build, err := e.db.Build(ctx, s.Live.Build)
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		m := marks[p.Hash]
		_, covered := build.Plans[p.Hash]
		s.Plans = append(s.Plans, planStatus{
			View: p.Name(), Plan: p.Hash, Epoch: m.Epoch, Position: m.Position.Seq, Covered: covered,
			Lag: info.Last - min(info.Last, m.Position.Seq),
		})
	}
	s.History, err = a.historyStatus(ctx, &cut.Definitions, info.Last)
	return s, err
}

func (a *app) printStatus(s *status) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "log\t%d messages, %d of %d bytes, last position %d, cut %d, %d dead letters\n",
		s.Log.Messages, s.Log.Bytes, s.Log.MaxBytes, s.Log.Last, s.Cut, s.Log.DeadLetters)
	pinned := ""
	if s.Live.Pinned {
		pinned = ", pinned by a rollback"
	}
	fmt.Fprintf(w, "live\tbuild %d at cut %d%s\n", s.Live.Build, s.Live.Cut, pinned)
	for _, h := range s.History {
		fmt.Fprintf(w, "history\t%s: %d events in %d files, position %d, %d messages behind\n", h.Type, h.Events, h.Files, h.Position, h.Lag)
	}
	for _, p := range s.Plans {
		note := ""
		if !p.Covered {
			note = ", not covered by the live build: run a batch"
		}
		fmt.Fprintf(w, "view\t%s: position %d, %d messages behind%s\n", p.View, p.Position, p.Lag, note)
	}
	return w.Flush()
}
