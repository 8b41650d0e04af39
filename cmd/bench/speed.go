package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// speedCommand is the first argument by which the speed layer is measured: from producers through the log and
// the worker into the views, beside a ClickHouse that does it by materialized views.
const speedCommand = "speed"

// SpeedConfig says what of the speed layer is measured, besides what Config has.
type SpeedConfig struct {
	PerMessage int      // events of a message
	PeerEvents int      // that the peer gets
	Singles    int      // messages of one event each
	Backlog    int      // events that gather while the worker is away
	Live       int      // events a second that come while it catches up
	Rates      []int    // events a second at which latencies are measured
	Seconds    int      // that each lasts
	Idle       int      // single events to an idle system
	Fsync      bool     // NATS and ClickHouse, also the peer's, sync before they acknowledge
	Only       []string // parts; nil: all
}

// A speedBench is a benchmark of the speed layer under way.
type speedBench struct {
	*bench
	speed  SpeedConfig
	data   *dataset
	events *stream // of messages of many events, of single ones, and of the peer
	live   *stream // what comes while a worker catches up
	marked *stream // for latencies at 1,000 events a second and idle
}

func runSpeed(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	b, err := parseSpeed(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.SchedGetaffinity(0, &b.all); err != nil {
		return err
	}
	r, err := b.run(ctx)
	if err != nil {
		return err
	}
	r.print(stdout)
	if b.cfg.JSON != "" {
		if err := writeJSON(b.cfg.JSON, r); err != nil {
			return err
		}
	}
	if b.cfg.Chart != "" {
		return r.writeChart(b.cfg.Chart)
	}
	return nil
}

func parseSpeed(args []string, stderr io.Writer) (*speedBench, error) {
	var cfg Config
	var s SpeedConfig
	f := flag.NewFlagSet("bench "+speedCommand, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&cfg.Events, "events", 5_000_000, "`events` of each run")
	f.Uint64Var(&cfg.Seed, "seed", 1, "what the events are drawn by")
	f.Float64Var(&cfg.Late, "late", 0.01, "`share` of events that come up to an hour late")
	f.StringVar(&cfg.Dir, "dir", filepath.Join(os.TempDir(), "watershed-bench"), "`directory` for the engines while they run")
	f.IntVar(&cfg.Runs, "runs", 3, "`runs` of which the median counts")
	memory := f.Int64("memory", 8192, "`MiB` that each ClickHouse may take")
	cores := f.String("cores", "2", "how many cores everybody is bound to, all together")
	f.IntVar(&s.PerMessage, "per-message", 200, "`events` of a message")
	f.IntVar(&s.PeerEvents, "peer-events", 2_000_000, "`events` of each of the peer's runs")
	f.IntVar(&s.Singles, "singles", 1_000_000, "`messages` of one event")
	f.IntVar(&s.Backlog, "backlog", 10_000_000, "`events` that gather while the worker is away, at most --events")
	f.IntVar(&s.Live, "live", 50_000, "`events` a second that come while it catches up")
	rates := f.String("rates", "1000,10000,50000,100000", "`list` of events a second at which latencies are measured; 50000 is one of them")
	f.IntVar(&s.Seconds, "seconds", 6, "`seconds` that each rate lasts")
	f.IntVar(&s.Idle, "idle", 20, "single `events` to an idle system")
	f.BoolVar(&s.Fsync, "fsync", false, "NATS and ClickHouse, also the peer's, sync what they acknowledge")
	only := f.String("only", "", "a `list` of parts to measure: "+strings.Join(partNames(), ", "))
	f.StringVar(&cfg.JSON, "json", "", "`file` for the result")
	f.StringVar(&cfg.Chart, "chart", "", "`file` for a chart, SVG")
	f.StringVar(&cfg.Profile, "profile", "", "`file` for a CPU profile of the worker that runs last")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	cfg.Memory = *memory << 20
	cfg.Command = "bench " + speedCommand + " " + strings.Join(args, " ")
	var errs [2]error
	cfg.Cores, errs[0] = list(*cores)
	s.Rates, errs[1] = list(*rates)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if len(cfg.Cores) != 1 || cfg.Events < 1000 || cfg.Runs < 1 || s.PerMessage < 1 || s.PeerEvents < 1 || s.Singles < 1 || s.Backlog < 50 ||
		s.Live < 200 || s.Seconds < 1 || s.Idle < 1 || f.NArg() > 0 {
		return nil, errors.New("--events must be 1000 or more, --live 200, --backlog 50, the other numbers 1, and nothing besides flags")
	}
	for name := range strings.FieldsFuncSeq(*only, func(r rune) bool { return r == ',' }) {
		if s.Only = append(s.Only, name); !slices.Contains(partNames(), name) {
			return nil, fmt.Errorf("--only %s: there is no such part", name)
		}
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	b := &speedBench{bench: &bench{cfg: cfg, stderr: stderr, cores: cfg.Cores[0]}, speed: s}
	return b, os.MkdirAll(cfg.Dir, 0o700)
}

// six are the views of the benchmark of batches.
func (b *speedBench) six() []string { return b.data.first(headline) }

// throughputStep is how far apart the times of events lie in runs at full speed: those of a million a second.
const throughputStep = time.Microsecond

// A part of the benchmark can be measured alone.
type part struct {
	name    string
	measure func(context.Context, *speedBench, *speedResult) error
}

func speedParts() []part {
	return []part{
		{"check", func(ctx context.Context, b *speedBench, _ *speedResult) error { return b.check(ctx) }},
		{"six", func(ctx context.Context, b *speedBench, r *speedResult) (err error) {
			r.Six, err = median(b, "six views", func() (load, error) { return b.through(ctx, b.six(), b.events.len()) })
			return err
		}},
		{"one", func(ctx context.Context, b *speedBench, r *speedResult) (err error) {
			r.One, err = median(b, "one view", func() (load, error) { return b.through(ctx, b.data.first(1), b.events.len()) })
			return err
		}},
		{"peer", func(ctx context.Context, b *speedBench, r *speedResult) (err error) {
			r.Peer, r.PeerTried, err = b.peer(ctx)
			return err
		}},
		{"singles", func(ctx context.Context, b *speedBench, r *speedResult) (err error) {
			r.Singles, err = b.oneByOne(ctx)
			return err
		}},
		{"latency", func(ctx context.Context, b *speedBench, r *speedResult) error { return b.latencies(ctx, r) }},
		{"idle", func(ctx context.Context, b *speedBench, r *speedResult) (err error) {
			r.Idle, err = b.idle(ctx, b.speed.Idle)
			return err
		}},
		{"restart", func(ctx context.Context, b *speedBench, r *speedResult) (err error) {
			r.Restart, err = b.restart(ctx)
			return err
		}},
	}
}

func partNames() (names []string) {
	for _, p := range speedParts() {
		names = append(names, p.name)
	}
	return names
}

func (b *speedBench) run(ctx context.Context) (*speedResult, error) {
	r := &speedResult{
		Seed: b.cfg.Seed, Runs: b.cfg.Runs, Cores: b.cores, PerMessage: b.speed.PerMessage, Fsync: b.speed.Fsync, Events: b.cfg.Events,
		Machine: thisMachine(), Date: time.Now().UTC().Format(time.DateOnly), Command: b.cfg.Command,
	}
	if err := pin(b.cores, b.all); err != nil {
		return nil, err
	}
	if err := b.prepare(); err != nil {
		return nil, err
	}
	r.Views = b.six()
	r.BytesPerEvent = b.events.bytesPerEvent()
	b.say("%d events of %.0f bytes", b.events.len(), r.BytesPerEvent)
	for _, p := range speedParts() {
		if b.speed.Only != nil && !slices.Contains(b.speed.Only, p.name) {
			continue
		}
		if err := p.measure(ctx, b, r); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	r.finish()
	r.Versions = versions{Watershed: revision(), ClickHouse: b.server}
	return r, nil
}

// prepare makes the events.
func (b *speedBench) prepare() (err error) {
	if b.data, err = definitionsOf("pageview"); err != nil {
		return err
	}
	b.events = b.cfg.Traffic.streamed(b.data, throughputStep, 0)
	live := b.cfg.Traffic
	live.Seed, live.Events = live.Seed+1, min(b.cfg.Events, 60*b.speed.Live)
	b.live = live.streamed(b.data, throughputStep, 0)
	live.Events = max(b.speed.Idle, 1000)
	b.marked = live.streamed(b.data, throughputStep, 1)
	return nil
}

// checkEvents are so many that the check takes a few seconds.
const checkEvents = 300_000

// check lets the worker and the peer fold the same events, in one ClickHouse, and holds the finished values of
// every group of every view against each other.
func (b *speedBench) check(ctx context.Context) (err error) {
	p, err := b.checked(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := checkClickHouse(ctx, p.server, p.plans); err != nil {
		return err
	}
	b.say("six views: all results of %d events agree with the peer's", min(checkEvents, b.events.len()))
	return p.server.row(ctx, "SELECT version()", &b.server)
}

// checked is a pipeline in whose ClickHouse both have folded the same events.
func (b *speedBench) checked(ctx context.Context) (_ *pipeline, err error) {
	p, err := b.openPipeline(ctx, b.six())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.runWorker(ctx); err != nil {
		return nil, err
	}
	n := min(checkEvents, b.events.len())
	if err := p.publish(ctx, b.events, 0, n, b.speed.PerMessage); err != nil {
		return nil, err
	}
	if err := b.makePeer(ctx, p.server, p.plans); err != nil {
		return nil, err
	}
	if err := p.server.insertJSON(ctx, b.events, n, peerWays[0]); err != nil {
		return nil, err
	}
	return p, p.visible(ctx, n)
}

// latencies measures all rates with six views, and the headline's with one.
func (b *speedBench) latencies(ctx context.Context, r *speedResult) error {
	for _, rate := range b.speed.Rates {
		t := b.cfg.Traffic
		t.Events = max(1, rate*b.speed.Seconds/perMessageAt(rate)) * perMessageAt(rate)
		s := t.streamed(b.data, time.Second/time.Duration(rate), perMessageAt(rate))
		l, err := median(b, fmt.Sprintf("%d events/s", rate), func() (latency, error) { return b.atRate(ctx, b.six(), rate, s) })
		if err != nil {
			return err
		}
		r.Latencies = append(r.Latencies, l)
	}
	return nil
}
