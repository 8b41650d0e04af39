package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/spf13/cobra"

	"watershed/internal/decode"
	"watershed/internal/eventlog"
)

// maxLine bounds one event of `publish`.
const maxLine = 1 << 20

func (a *app) publishCmd() *cobra.Command {
	var per int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "publish TYPE [FILE]",
		Short: "Publish events, one JSON object per line, to the log",
		Long: `Publish events of a type from a file or from standard input, one JSON object per line, and
return when the log has acknowledged them. Each line is checked against the type's schema
first: lines that do not fit are named and left out, and the exit code is 1. Publishing the
same events twice counts them once: so if the log is full or cannot be reached, which is an
error within a minute, run the same command again later.`,
		Example: `  watershed publish departure june.ndjson
  echo '{"id":"x1","time":"2001-07-01T08:00:00Z","origin":"SFO","destination":"JFK","delay":3,"distance":2586}' | watershed publish departure`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if per < 1 {
				return usage("--events-per-message %d: want 1 or more", per)
			}
			in := a.stdin
			if len(args) == 2 && args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return usageError{err}
				}
				defer f.Close()
				in = f
			}
			if err := a.locate(); err != nil {
				return err
			}
			log, err := a.openLog(cmd.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			done, err := a.publish(cmd.Context(), log, args[0], in, per)
			if asJSON && err == nil {
				if err := a.printJSON(done); err != nil {
					return err
				}
			} else if err == nil {
				fmt.Fprintf(a.stdout, "published %d events in %d messages; the log is at position %d\n", done.Events, done.Messages, done.Position)
			}
			if err == nil && done.Refused > 0 {
				err = fmt.Errorf("%d lines were not published: they do not fit event type %s", done.Refused, args[0])
			}
			return err
		},
	}
	cmd.Flags().IntVar(&per, "events-per-message", 200, "events packed into one message")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// A published says what a publish did.
type published struct {
	Events   int    `json:"events"`
	Messages int    `json:"messages"`
	Refused  int    `json:"refused"`  // lines that do not fit the schema
	Position uint64 `json:"position"` // stream sequence that holds the last of them
}

func (a *app) publish(ctx context.Context, log *eventlog.Log, eventType string, in io.Reader, per int) (*published, error) {
	cut, ok, err := log.LastCut(ctx)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, usage("the log has no definitions yet: start `watershed up` or `watershed speed` first")
	}
	ev := cut.Definitions.Event(eventType)
	if ev == nil {
		return nil, usage("no event type %s is defined; there are %s", eventType, eventNames(&cut.Definitions))
	}
	pub, err := log.NewPublisher(eventlog.PublisherOptions{})
	if err != nil {
		return nil, err
	}
	defer pub.Close()
	check := decode.New(ev, eventlog.Limits(&cut))
	done := &published{}
	var message bytes.Buffer
	events, line := 0, 0
	send := func() error {
		if events == 0 {
			return nil
		}
		payload := bytes.Clone(message.Bytes())
		message.Reset()
		done.Messages++
		done.Events += events
		events = 0
		return pub.Publish(ctx, eventType, payload, strconv.FormatUint(xxhash.Sum64(payload), 16))
	}
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 0, 64<<10), maxLine)
	for scan.Scan() {
		line++
		text := bytes.TrimSpace(scan.Bytes())
		if len(text) == 0 {
			continue
		}
		if bad := check.Append(text, 1, time.Now()); len(bad) > 0 {
			done.Refused++
			fmt.Fprintf(a.stderr, "line %d: %s\n", line, bad[0].Reason)
			continue
		}
		if check.Rows() >= 10_000 {
			check.Record().Release() // the check alone was wanted
		}
		message.Write(text)
		message.WriteByte('\n')
		if events++; events == per {
			if err := send(); err != nil {
				return nil, notPublished(ctx, pub, done, err)
			}
		}
	}
	if err := scan.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("line %d is longer than %d bytes", line+1, maxLine)
		}
		return nil, fmt.Errorf("read events: %w", err)
	}
	if err := send(); err != nil {
		return nil, notPublished(ctx, pub, done, err)
	}
	if done.Position, err = pub.Flush(ctx); err != nil {
		return nil, notPublished(ctx, nil, done, err)
	}
	return done, nil
}

// notPublished says how much of what was sent the log may lack, why, and what to do. Nothing of
// it is called published, though some of it may be in the log: doing it again counts it once.
func notPublished(ctx context.Context, pub *eventlog.Publisher, done *published, err error) error {
	if pub != nil { // it refused a message because of an earlier one; all that it knows of, Flush tells
		if _, flushErr := pub.Flush(ctx); flushErr != nil {
			err = flushErr
		}
	}
	lost, first := failures(err)
	if first == nil {
		return err
	}
	again := ""
	switch {
	case errors.Is(err, eventlog.ErrUnreachable):
		again = "\nRun the same command again in a minute: what the log has already counts once"
	case errors.Is(err, eventlog.ErrLogFull):
		again = "\n`watershed up` and `watershed speed` raise the limit with --log-max-bytes. When there is room, run the same command again: what the log has already counts once"
	}
	return fmt.Errorf("%d of %d messages were not acknowledged: %w%s", lost, done.Messages, first, again)
}

// failures counts the messages that were given up, and returns why the first was.
func failures(err error) (n int, first error) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, e := range all {
		var failed *eventlog.PublishError
		if errors.As(e, &failed) {
			if n++; first == nil {
				first = failed.Err
			}
		}
	}
	return n, first
}
