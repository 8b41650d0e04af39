package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"watershed/batch"
	"watershed/batch/history"
)

func (a *app) verifyCmd() *cobra.Command {
	var asJSON bool
	var only verifyParts
	var engine *string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that history, log and views are what they should be",
		Long: `Prove, without changing anything, that

  history  every live file has the hash and the rows that were committed, and the tables' logs
           have no hole;
  log      every event that the log still has is in history exactly once, with all its values;
  slices   what the live build shows is what history gives when it is computed again.

All parts are looked at unless some are named. A part whose engine is not there is reported as
not checked, and is an error if it was named. Exit code 3 if anything differs: with what and
where. ` + "`watershed repair`" + ` heals what can be healed.`,
		Example: `  watershed verify
  watershed verify --history /data/history --files --json
  watershed verify --slices          all of history is read and folded again
  watershed verify --slices --engine clickhouse`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.locate(); err != nil {
				return err
			}
			r, err := a.verify(cmd.Context(), only, *engine)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(r)
			} else {
				a.printVerified(r)
			}
			if n := r.differences(); err == nil && n > 0 {
				err = driftError{fmt.Sprintf("%d differences: `watershed repair` says what can be done", n)}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&only.files, "files", false, "look at the files and logs of history")
	cmd.Flags().BoolVar(&only.log, "log", false, "hold the log against history")
	cmd.Flags().BoolVar(&only.slices, "slices", false, "compute the live build again, and compare")
	engine = engineFlag(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// verifyParts are the parts that were named; none: all.
type verifyParts struct{ files, log, slices bool }

func (p verifyParts) all() bool { return p == verifyParts{} }

// A verified says what was compared, and what differs.
type verified struct {
	History *verifiedHistory    `json:"history,omitempty"`
	Log     *verifiedLog        `json:"log,omitempty"`
	Slices  *batch.VerifyReport `json:"slices,omitempty"`
	Not     map[string]string   `json:"not_checked,omitempty"` // why, by part
	gone    int                 // files that the live build rests on and that history has given up
}

type verifiedHistory struct {
	Types    int       `json:"types"`
	Files    int       `json:"files"`
	Events   int64     `json:"events"`
	Bytes    int64     `json:"bytes"`
	Strays   int       `json:"strays"` // files that no version names: they do no harm
	Problems []problem `json:"problems"`
	GivenUp  []string  `json:"given_up,omitempty"` // by repairs, and not brought back since
}

type verifiedLog struct {
	From     uint64    `json:"from"` // sequences of the log
	To       uint64    `json:"to"`
	Events   int64     `json:"events"`
	Problems []problem `json:"problems"`
}

// A problem is a difference: what, and where.
type problem struct {
	Type  string `json:"type"`
	Kind  string `json:"kind"`
	Path  string `json:"path,omitempty"`
	Where string `json:"where,omitempty"` // date, version or sequences
	Rows  int64  `json:"events,omitempty"`
	What  string `json:"what"`
	text  string
}

func problemsOf(in []history.Problem) []problem {
	out := make([]problem, len(in))
	for i, p := range in {
		out[i] = problem{Type: p.Type, Kind: string(p.Kind), Path: p.Path, Where: p.Where, Rows: p.Rows, What: fmt.Sprint(p.Err), text: p.String()}
	}
	return out
}

func (r *verified) differences() (n int) {
	n = r.gone
	if r.History != nil {
		n += len(r.History.Problems)
	}
	if r.Log != nil {
		n += len(r.Log.Problems)
	}
	if s := r.Slices; s != nil {
		if s.Damage != "" {
			n++
		}
		for _, v := range s.Views {
			n += len(v.Problems) + int(v.Values.Drifted)
		}
		if n == 0 && !s.Sound() {
			n++
		}
	}
	return n
}

// verify looks at the parts. A difference is no error.
func (a *app) verify(ctx context.Context, only verifyParts, engine string) (*verified, error) {
	r := &verified{Not: make(map[string]string)}
	if only.all() || only.files {
		h, err := history.Verify(ctx, a.cfg.History)
		if err != nil {
			return nil, err
		}
		r.History = &verifiedHistory{Types: h.Types, Files: h.Files, Events: h.Rows, Bytes: h.Bytes, Strays: len(h.Strays), Problems: problemsOf(h.Problems)}
		for _, loss := range h.GivenUp {
			r.History.GivenUp = append(r.History.GivenUp, loss.String())
		}
	}
	for name, part := range map[string]struct {
		wanted bool
		run    func(context.Context, *verified) error
	}{"log": {only.log, a.verifyLog}, "slices": {only.slices, func(ctx context.Context, r *verified) error { return a.verifySlices(ctx, r, engine) }}} {
		if !only.all() && !part.wanted {
			continue
		}
		err := part.run(ctx, r)
		var missing usageError // an engine that is not configured, and no `up` that runs
		var corrupt *history.CorruptError
		if r.differences() == 0 && errors.As(err, &corrupt) {
			// Of the newest version all files are whole, or have not been looked at.
			r.gone++
			r.Not[name] = fmt.Sprintf("%v; the live build rests on that file. If a repair has given it up, `watershed batch` makes a build without it; if not, `watershed repair` says what can be done", err)
		} else if errors.As(err, &missing) && !part.wanted {
			r.Not[name] = err.Error()
		} else if err != nil && r.differences() > 0 {
			r.Not[name] = err.Error() // what was found already stands in its way: say that, and how it is healed
		} else if err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (a *app) verifyLog(ctx context.Context, r *verified) error {
	log, err := a.openLog(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	l, err := history.VerifyLog(ctx, a.cfg.History, a.appID(), archiverSource(log))
	if err != nil {
		return err
	}
	r.Log = &verifiedLog{From: l.From, To: l.To, Events: l.Events, Problems: problemsOf(l.Problems)}
	return nil
}

// verifySlices computes the live build again, by an engine, in a database beside that of the views.
func (a *app) verifySlices(ctx context.Context, r *verified, engine string) (err error) {
	db, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close() // idle connections
	scratch, err := db.Scratch(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Drop(context.WithoutCancel(ctx))) }()
	p := a.newProgress("verify")
	defer p.done()
	cfg := a.cfg.batch()
	if cfg.Engine, err = a.engine(engine, scratch); err != nil {
		return err
	}
	cfg.History, cfg.App, cfg.Logger, cfg.Progress = a.cfg.History, a.appID(), a.log, p.step
	r.Slices, err = batch.Verify(ctx, db, scratch, cfg)
	return err
}

func (a *app) printVerified(r *verified) {
	list := func(problems []problem) {
		for _, p := range problems {
			fmt.Fprintln(a.stdout, "  "+p.text)
		}
	}
	if h := r.History; h != nil {
		fmt.Fprintf(a.stdout, "history: %d files of %d types, %d events, %d bytes: %d problems\n", h.Files, h.Types, h.Events, h.Bytes, len(h.Problems))
		list(h.Problems)
		for _, loss := range h.GivenUp {
			fmt.Fprintln(a.stdout, "  given up by a repair:", loss)
		}
		if h.Strays > 0 {
			fmt.Fprintf(a.stdout, "  and %d files that no version names, left by processes that died: vacuum removes them\n", h.Strays)
		}
	}
	if l := r.Log; l != nil {
		fmt.Fprintf(a.stdout, "log: positions %d to %d, %d events held against history: %d problems\n", l.From, l.To, l.Events, len(l.Problems))
		list(l.Problems)
	}
	if s := r.Slices; s != nil {
		if s.Damage != "" {
			fmt.Fprintf(a.stdout, "slices: ClickHouse lacks what views rest on: %s\n", s.Damage)
		}
		for _, v := range s.Views {
			state := fmt.Sprintf("%d slices computed again, %d groups compared: %d problems", v.Slices, v.Values.Groups, len(v.Problems)+int(v.Values.Drifted))
			if v.Skipped != "" {
				state = "not computed, " + v.Skipped
			}
			fmt.Fprintf(a.stdout, "slices: build %d, %s: %s\n", s.Build, v.View, state)
			for _, p := range v.Problems {
				fmt.Fprintln(a.stdout, "  "+p)
			}
			for _, g := range v.Values.Worst {
				fmt.Fprintf(a.stdout, "  %v %s: shown %s, is %s\n", g.Group, g.Measure, g.Baseline, g.Batch)
			}
		}
	}
	for _, part := range sortedKeys(r.Not) {
		fmt.Fprintf(a.stdout, "%s: not checked: %s\n", part, r.Not[part])
	}
}
