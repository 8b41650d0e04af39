package main

import (
	"testing"
	"time"
)

func TestParseNightly(t *testing.T) {
	f := func(text string, want time.Duration, ok bool) {
		t.Helper()
		got, err := parseNightly(text)
		if (err == nil) != ok || ok && got != want {
			t.Errorf("parseNightly(%q) = %s, %v; want %s, ok %t", text, got, err, want, ok)
		}
	}
	f("00:00", 0, true)
	f("02:00", 2*time.Hour, true)
	f("23:59", 24*time.Hour-time.Minute, true)
	f("off", -1, true)
	f("", 0, false)
	f("2", 0, false)
	f("24:00", 0, false)
	f("02:60", 0, false)
}

func TestNextNight(t *testing.T) {
	f := func(now string, at time.Duration, want string) {
		t.Helper()
		from, err := time.Parse(time.RFC3339, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := nextNight(from, at).Format(time.RFC3339); got != want {
			t.Errorf("nextNight(%s, %s) = %s; want %s", now, at, got, want)
		}
	}
	f("2026-02-28T01:59:59Z", 2*time.Hour, "2026-02-28T02:00:00Z")
	f("2026-02-28T02:00:00Z", 2*time.Hour, "2026-03-01T02:00:00Z")
	f("2026-12-31T23:00:00Z", 0, "2027-01-01T00:00:00Z")
}
