package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"watershed/internal/devserver/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// The short form of the simulated year: answers are right every few days, and what is trimmed is trimmed.
func TestDays(t *testing.T) {
	result, err := Simulate(t.Context(), Config{
		Dir: t.TempDir(), Days: 8, Every: 4, PerDay: 100, Seed: uint64(time.Now().UnixNano()),
		Horizon: time.Second, Retention: 2 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	result.Print(&table)
	t.Log("\n" + table.String())
	if got := result.Samples[1].Values[logMessages]; got > 100 {
		t.Errorf("after 8 days the log holds %.0f messages: it is not trimmed", got)
	}
}
