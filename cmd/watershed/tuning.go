package main

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"watershed/batch"
	"watershed/speed"
)

// A tuning is the settings that bound time and memory. --past and --future are what the cuts say that
// this process publishes; all readers of the log hold events against the cut that they stand behind.
type tuning struct {
	Past, Future span          // range of event times around the log's timestamp of the message
	Horizon      time.Duration // stretch of log in which the speed layer finds duplicates
	HorizonRows  int           // events remembered for that at most
	FlushEvery   time.Duration // how long states wait for their flush
	Retention    span          // of history's files that no version needs any more
	Trim         string        // "auto" or "off"

	BatchMemory     int64      // bytes of states that wait to be inserted
	DuplicateMemory int64      // bytes of what finds duplicates in a batch
	Gate            batch.Gate // drift that keeps the live build live

	CompactBytes  int64 // of history's files that are compacted after a batch; 0: none
	CompactMemory int64 // bytes in which a date is sorted
}

const (
	trimAuto = "auto"
	trimOff  = "off"

	day  = 24 * time.Hour
	year = 365*day + day/4
)

func (t *tuning) register(f *pflag.FlagSet) {
	t.Past, t.Future, t.Retention = span(50*year), span(day), span(7*day)
	f.Var(&t.Past, "past", "how far an event's time may lie before it was published; what is older goes to the dead letters; from the next cut on")
	f.Var(&t.Future, "future", "how far an event's time may lie after it was published; likewise")
	f.DurationVar(&t.Horizon, "horizon", 15*time.Minute, "`stretch` of log in which the speed layer finds duplicates; the batch finds all")
	f.IntVar(&t.HorizonRows, "horizon-rows", 9_000_000, "most `events` that are remembered for that, 15 bytes each")
	f.DurationVar(&t.FlushEvery, "flush-every", 100*time.Millisecond, "how long events wait until they show, at least")
	f.Var(&t.Retention, "retention", "how long files of history stay that compaction or repair has replaced")
	f.Int64Var(&t.BatchMemory, "batch-memory", 384<<20, "`bytes` of states that a batch keeps until they are inserted")
	f.Int64Var(&t.DuplicateMemory, "duplicate-memory", 256<<20, "`bytes` in which a batch finds duplicates; dates that need more are read several times")
	f.Var(&t.Gate, "gate", "`drift` above which a build does not go live: off, an amount like 0 or 250, or a share like 0.5%")
	f.Int64Var(&t.CompactBytes, "compact-bytes", 4<<30, "`bytes` of history's small files that are brought together after each batch, at most; 0: none are")
	f.Int64Var(&t.CompactMemory, "compact-memory", 256<<20, "`bytes` in which a date's events are sorted for that; dates that need more are read several times")
	f.StringVar(&t.Trim, "trim", trimAuto, "what the log forgets: auto (what history has and nobody needs) or off (nothing)")
}

// validate says all that is wrong with the settings.
func (t *tuning) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(t.Past >= span(time.Hour), "--past %s: want 1h or more", t.Past)
	check(t.Future >= span(time.Minute), "--future %s: want 1m or more, since clocks differ", t.Future)
	check(t.Horizon >= time.Second && t.Horizon <= 7*day, "--horizon %s: want 1s to 168h; its events are kept in memory", t.Horizon)
	check(t.HorizonRows >= 1000 && t.HorizonRows <= 100_000_000, "--horizon-rows %d: want 1000 to 100000000", t.HorizonRows)
	check(t.FlushEvery >= 10*time.Millisecond && t.FlushEvery <= time.Minute, "--flush-every %s: want 10ms to 1m", t.FlushEvery)
	check(t.Retention >= span(time.Hour) && t.Retention <= span(30*day), "--retention %s: want 1h to 30d: what runs still reads what was replaced", t.Retention)
	check(t.BatchMemory >= 1<<20, "--batch-memory %d: want 1048576 or more", t.BatchMemory)
	check(t.DuplicateMemory >= 1<<20, "--duplicate-memory %d: want 1048576 or more", t.DuplicateMemory)
	check(t.CompactBytes >= 0, "--compact-bytes %d: want 0 or more", t.CompactBytes)
	check(t.CompactMemory >= 1<<20 && t.CompactMemory <= 2<<30, "--compact-memory %d: want 1048576 to 2147483648", t.CompactMemory)
	check(t.Trim == trimAuto || t.Trim == trimOff, "--trim %q: want auto or off", t.Trim)
	return errors.Join(errs...)
}

func (t *tuning) speed() speed.Config {
	return speed.Config{FlushEvery: t.FlushEvery, Horizon: t.Horizon, HorizonRows: t.HorizonRows}
}

func (t *tuning) batch() batch.Config {
	return batch.Config{Memory: t.BatchMemory, DuplicateMemory: t.DuplicateMemory, Gate: t.Gate}
}

// A span is a time.Duration that may also be written in days and years: 7d, 50y, 1d12h. A year
// has 365.25 days.
type span time.Duration

// Type, Set and String make it a flag's value.
func (s *span) Type() string { return "span" }

func (s *span) Set(text string) error {
	rest, total := text, 0.0
	for {
		m := longUnits().FindStringSubmatch(rest)
		if m == nil {
			break
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		unit := day
		if m[2] == "y" {
			unit = year
		}
		total += n * float64(unit)
		rest = rest[len(m[0]):]
	}
	if rest != "" || text == "" {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return errors.New("want a time span like 36h, 7d or 50y")
		}
		total += float64(d)
	}
	if total < 0 || total > math.MaxInt64 {
		return fmt.Errorf("want a time span from 0 to %dy", math.MaxInt64/int64(year))
	}
	*s = span(total)
	return nil
}

func (s span) String() string {
	d := time.Duration(s)
	var out strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{year, "y"}, {day, "d"}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	if d > 0 || out.Len() == 0 {
		out.WriteString(d.String())
	}
	return out.String()
}

func longUnits() *regexp.Regexp { return regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([dy])`) }
