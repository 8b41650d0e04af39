package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestSpan(t *testing.T) {
	f := func(text string, want time.Duration, shown string) {
		t.Helper()
		var s span
		if err := s.Set(text); err != nil || time.Duration(s) != want || s.String() != shown {
			t.Errorf("%q: %s (%d), %v; want %s (%d)", text, s, s, err, shown, want)
		}
	}
	f("36h", 36*time.Hour, "1d12h0m0s")
	f("7d", 7*24*time.Hour, "7d")
	f("1d12h", 36*time.Hour, "1d12h0m0s")
	f("0.5d", 12*time.Hour, "12h0m0s")
	f("50y", 50*365*24*time.Hour+50*6*time.Hour, "50y")
	f("0s", 0, "0s")
	for _, text := range []string{"", "7", "d", "-1h", "1d-30h", "1w", "300y", "1y x"} {
		var s span
		if err := s.Set(text); err == nil {
			t.Errorf("%q is %s; want an error", text, s)
		}
	}
}

// TestTuningNamesWhatIsWrong: the defaults are right, and each setting that is not is named.
func TestTuningNamesWhatIsWrong(t *testing.T) {
	f := func(args, wrong string) {
		t.Helper()
		var tune tuning
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		tune.register(flags)
		if err := flags.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		err := tune.validate()
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%q: %v; want %q in it", args, err, wrong)
		}
	}
	f("", "")
	f("--past 10y --future 2d --horizon 1h --horizon-rows 100000 --flush-every 1s --retention 30d --trim off", "")
	f("--past 1m", "--past 1m0s: want")
	f("--future 0s", "--future 0s: want")
	f("--horizon 1000h", "--horizon 1000h0m0s: want")
	f("--horizon-rows 0", "--horizon-rows 0: want")
	f("--flush-every 0s", "--flush-every 0s: want")
	f("--retention 1s", "--retention 1s: want")
	f("--compact-bytes 0 --compact-memory 1048576", "")
	f("--compact-bytes -1", "--compact-bytes -1: want")
	f("--compact-memory 1000", "--compact-memory 1000: want")
	f("--trim never", `--trim "never": want`)
	f("--trim never --past 0s", "--past 0s: want")
}
