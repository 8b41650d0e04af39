package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"watershed/schemas"
)

// Status is the state of the pipeline, as its engines tell it.
type Status struct {
	Live    LiveInfo       `json:"live"`
	Cut     uint64         `json:"cut" doc:"Number of the log's last cut"`
	Batch   BatchStatus    `json:"batch"`
	Plans   []PlanStatus   `json:"plans"`
	History []TypeStatus   `json:"history,omitempty" doc:"Absent where history cannot be read"`
	Log     *LogInfo       `json:"log,omitempty" doc:"Absent when the log does not answer: see errors"`
	Dead    []DeadCount    `json:"dead_letters,omitempty" doc:"By type and reason, most first"`
	Builds  []BuildInfo    `json:"builds" doc:"Newest first"`
	Workers map[string]any `json:"workers,omitempty" doc:"What the loops of this process say of themselves"`
	Errors  []string       `json:"errors,omitempty" doc:"What did not answer"`
}

// BatchStatus is what is known of the nightly job.
type BatchStatus struct {
	Build          uint64    `json:"build" doc:"The newest build"`
	At             time.Time `json:"at" doc:"When it was made"`
	Pending        uint64    `json:"pending,omitempty" doc:"The log's last cut, if no build of it is there: a batch runs, or gave up"`
	PendingSeconds float64   `json:"pending_seconds,omitempty" doc:"Age of that cut"`
	Audited        uint64    `json:"audited,omitempty" doc:"The build of the newest audit"`
	Drifted        uint64    `json:"drifted" doc:"Groups that drifted in it"`
}

// PlanStatus is how far one view's states reach.
type PlanStatus struct {
	View       string   `json:"view"`
	Plan       string   `json:"plan"`
	Epoch      uint64   `json:"epoch"`
	Position   uint64   `json:"position" doc:"Last sequence of the log that is in its states"`
	Lag        *uint64  `json:"lag,omitempty" doc:"Sequences of the log that are not in its states yet; absent when the log does not answer"`
	LagSeconds *float64 `json:"lag_seconds,omitempty" doc:"Age of the oldest event that is not in its states"`
	Covered    bool     `json:"covered" doc:"The live build covers it"`
	Cut        uint64   `json:"cut" doc:"The cut at which its slices of the live build stand"`
	HeldOver   bool     `json:"held_over,omitempty" doc:"That is an older cut than the build's: its history had not reached the build's"`
	Stranded   bool     `json:"stranded,omitempty" doc:"The log no longer has what comes next: it goes on when a batch covers it"`
}

// TypeStatus is how far one type's history reaches.
type TypeStatus struct {
	Type       string   `json:"type"`
	Files      int      `json:"files"`
	Events     int64    `json:"events"`
	Position   uint64   `json:"position" doc:"Last sequence of the log that is in it"`
	Lag        *uint64  `json:"lag,omitempty" doc:"Sequences from there to the log's end, if events of the type are among them"`
	LagSeconds *float64 `json:"lag_seconds,omitempty" doc:"Age of the oldest event of the type that is not in it"`
	Failing    string   `json:"failing,omitempty" doc:"Why the archiver of this process does not get on with it"`
}

// lag is how many messages of the log, and how many seconds, one who has everything up to a position is behind
// with a type of event.
func (i *LogInfo) lag(ctx context.Context, log Log, eventType string, position uint64, now time.Time) (messages uint64, seconds float64, err error) {
	next, at, ok, err := log.NextOf(ctx, eventType, position)
	if err != nil || !ok {
		return 0, 0, err
	}
	// The log goes on while it is read: it may be further than it was when info was taken.
	return max(i.Last, next) - position, max(now.Sub(at).Seconds(), 0), nil
}

// stranded reports whether the log has lost what comes behind a position.
func (i *LogInfo) stranded(position uint64) bool {
	return position > i.Anew && position+1 < i.First
}

// ReadStatus says as much as can be known: an engine that does not answer is an error in the status.
func ReadStatus(ctx context.Context, deps Deps) *Status {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var (
		s      = &Status{}
		live   schemas.Live
		build  schemas.Build
		views  []View
		marks  map[string]schemas.Mark
		info   LogInfo
		audits []schemas.Audit
	)
	errs := together(map[string]func() error{
		"log": func() (err error) { info, err = deps.Log.Info(ctx); return err },
		"builds": func() (err error) {
			if live, s.Builds, err = builds(ctx, deps.Catalog); err == nil {
				build, err = deps.Catalog.Build(ctx, live.Build)
			}
			return err
		},
		"positions": func() (err error) {
			if views, err = deps.Catalog.Views(ctx); err == nil {
				marks, err = deps.Catalog.Positions(ctx, views)
			}
			return err
		},
		"history": func() (err error) {
			if deps.History != nil {
				s.History, err = deps.History(ctx)
			}
			return err
		},
		"dead letters": func() (err error) {
			if deps.DeadLetters != nil {
				s.Dead, err = deps.DeadLetters.Counts(ctx)
			}
			return err
		},
		"audits": func() (err error) {
			if deps.Audits != nil {
				audits, err = deps.Audits(ctx)
			}
			return err
		},
	})

	now := time.Now()
	s.Live = newLiveInfo(live)
	if errs["log"] == nil {
		s.Log, s.Cut = &info, info.Cut
	}
	s.Batch = batchStatus(s, audits, errs["builds"] == nil, now)
	s.Plans = make([]PlanStatus, 0, len(views))
	for _, v := range views {
		p := PlanStatus{View: v.Name(), Plan: v.Plan, Epoch: marks[v.Plan].Epoch, Position: marks[v.Plan].Position.Seq}
		covered, ok := build.Plans[v.Plan]
		p.Covered, p.Cut = ok, covered.Cut
		p.HeldOver = ok && covered.Cut < build.Cut
		if s.Log != nil && errs["positions"] == nil {
			p.Stranded = info.stranded(p.Position)
			lag, seconds, err := info.lag(ctx, deps.Log, v.Definition.From, p.Position, now)
			if p.Lag, p.LagSeconds = &lag, &seconds; err != nil {
				p.Lag, p.LagSeconds, errs["log"] = nil, nil, err
			}
		}
		s.Plans = append(s.Plans, p)
	}
	for i := range s.History {
		if t := &s.History[i]; s.Log != nil {
			lag, seconds, err := info.lag(ctx, deps.Log, t.Type, t.Position, now)
			if t.Lag, t.LagSeconds = &lag, &seconds; err != nil {
				t.Lag, t.LagSeconds, errs["log"] = nil, nil, err
			}
		}
	}
	if deps.Workers != nil {
		s.Workers = deps.Workers()
	}
	for name, err := range errs {
		s.Errors = append(s.Errors, fmt.Sprintf("%s: %v", name, err))
	}
	slices.Sort(s.Errors)
	return s
}

// together does all at once and returns what failed, by name.
func together(parts map[string]func() error) map[string]error {
	var mu sync.Mutex // guards errs
	errs := make(map[string]error)
	var wait sync.WaitGroup
	for name, part := range parts {
		wait.Go(func() {
			if err := part(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs[name] = err
			}
		})
	}
	wait.Wait()
	return errs
}

func batchStatus(s *Status, audits []schemas.Audit, known bool, now time.Time) (b BatchStatus) {
	for _, build := range s.Builds {
		if build.Number >= b.Build {
			b.Build, b.At = build.Number, build.At
		}
	}
	if s.Log != nil && known && s.Log.Cut > max(b.Build, 1) { // cut 1 begins the log: no batch has published it
		b.Pending, b.PendingSeconds = s.Log.Cut, max(now.Sub(s.Log.CutTime).Seconds(), 0)
	}
	for _, a := range audits {
		b.Audited = max(b.Audited, a.Build)
	}
	for _, a := range audits {
		if a.Build == b.Audited {
			b.Drifted += a.Drifted
		}
	}
	return b
}

type statusOutput struct{ Body *Status }

func (a *api) status(ctx context.Context, in *struct{ request }) (*statusOutput, error) {
	if err := only(in.query); err != nil {
		return nil, err
	}
	return &statusOutput{ReadStatus(ctx, a.deps)}, nil
}
