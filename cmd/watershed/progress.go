package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"watershed/batch"
)

// A progress shows how far long work is: a line that is rewritten on a terminal, one line per
// finished step otherwise.
type progress struct {
	a     *app
	what  string
	live  bool
	quiet bool // no lines of finished steps
	bar   *progressbar.ProgressBar
	name  string
	began time.Time
}

func (a *app) newProgress(what string) *progress {
	return &progress{a: a, what: what, live: isTerminal(a.stderr)}
}

// liveProgress shows the line that is rewritten, and nothing of it afterwards.
func (a *app) liveProgress(what string) *progress {
	p := a.newProgress(what)
	p.quiet = true
	return p
}

// step takes a batch's progress.
func (p *progress) step(s batch.Progress) {
	if s.Step != p.name {
		p.finish()
		p.name, p.began = s.Step, time.Now()
		if p.live {
			p.bar = p.newBar(s.Step)
		}
	}
	if p.bar == nil || s.Total == 0 {
		return
	}
	p.bar.ChangeMax64(s.Total)
	p.bar.Describe(strings.TrimSpace(p.what + ": " + s.Step + " " + s.Detail))
	_ = p.bar.Set64(s.Done) // a line that cannot be drawn is no failure
}

// bytes takes the progress of a copy.
func (p *progress) bytes(done, total int64) {
	p.step(batch.Progress{Step: "read", Done: done, Total: total})
}

func (p *progress) newBar(step string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(p.a.stderr),
		progressbar.OptionSetDescription(p.what+": "+step),
		progressbar.OptionShowCount(),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionEnableColorCodes(false),
		progressbar.OptionSetWidth(30))
}

func (p *progress) finish() {
	if p.name == "" {
		return
	}
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
	if p.quiet {
		return
	}
	fmt.Fprintf(p.a.stderr, "%s: %-9s %6.2f s\n", p.what, p.name, time.Since(p.began).Seconds())
}

func (p *progress) done() {
	p.finish()
	p.name = ""
}
