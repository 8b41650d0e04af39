package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) tailCmd() *cobra.Command {
	var every time.Duration
	var from, to string
	var filter, null []string
	var limit uint64
	cmd := &cobra.Command{
		Use:   "tail VIEW",
		Short: "Show groups of a view as they change",
		Long: `Follow a view at the endpoint of ` + "`up` or `serve`" + `: each group that changes, with its measures as they
stand then. On a terminal as aligned lines, else one JSON object a line. If the connection breaks, it
goes on where it was. After a build goes live, which standard error says, any group may be another.`,
		Example: `  watershed tail departures_by_hour --filter origin:JFK
  watershed tail days --every 2s --limit 10`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.locate(); err != nil {
				return err
			}
			ask := url.Values{"filter": filter, "null": null, "every": {every.String()}, "from": {from}, "to": {to}}
			t := &tailer{app: a, url: url.URL{Scheme: "http", Host: a.cfg.Listen, Path: "/v1/views/" + args[0] + "/tail", RawQuery: ask.Encode()},
				aligned: isTerminal(a.stdout), limit: limit}
			return t.run(cmd.Context())
		},
	}
	cmd.Flags().DurationVar(&every, "every", 500*time.Millisecond, "changes within so long are one, 100ms to 60s")
	cmd.Flags().StringVar(&from, "from", "", "groups whose time buckets start at this `time` or later (RFC 3339, or a date)")
	cmd.Flags().StringVar(&to, "to", "", "groups whose time buckets start before this `time`")
	cmd.Flags().StringArrayVar(&filter, "filter", nil, "`dimension:value` of the groups; repeated for one dimension: any of the values")
	cmd.Flags().StringArrayVar(&null, "null", nil, "`dimension` that the groups have no value of")
	cmd.Flags().Uint64Var(&limit, "limit", 0, "leave after so many groups")
	return cmd
}

// A tailer prints what a tail sends.
type tailer struct {
	*app
	url     url.URL
	aligned bool
	limit   uint64 // 0: none

	opened bool // once, so that what fails may be tried again
	id     string
	shown  uint64
	widths []int
}

// errEnough ends a tail that has shown what it should.
var errEnough = errors.New("enough groups")

// run follows until ctx ends, the limit is reached, or the endpoint refuses.
func (t *tailer) run(ctx context.Context) error {
	for {
		again, err := t.once(ctx)
		switch {
		case errors.Is(err, errEnough):
			return nil
		case ctx.Err() != nil:
			return nil // that is how a tail ends
		case !t.opened || !again:
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// once opens the tail behind the last event and prints what comes. again: it is worth another try.
func (t *tailer) once(ctx context.Context) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url.String(), nil)
	if err != nil {
		return false, err
	}
	if t.id != "" {
		req.Header.Set("Last-Event-ID", t.id)
	}
	if t.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+t.cfg.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			err = fmt.Errorf("nothing answers at %s: start `watershed up` or `watershed serve`", t.cfg.Listen)
		}
		return true, err
	}
	defer resp.Body.Close()
	if s := resp.StatusCode; s != http.StatusOK {
		return s >= 500 || s == http.StatusTooManyRequests || s == http.StatusConflict, problemError(resp)
	}
	t.opened = true
	var name, id string
	var data []byte
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return true, err
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		field, value, _ := bytes.Cut(line, []byte(": "))
		switch string(field) {
		case "event":
			name = string(value)
		case "id":
			id = string(value)
		case "data":
			data = value
		}
		if len(line) > 0 {
			continue
		}
		if len(data) > 0 {
			if err := t.print(name, data); err != nil {
				return false, err
			}
		}
		if id != "" {
			t.id = id
		}
		name, id, data = "", "", nil
	}
}

// print prints an event.
func (t *tailer) print(name string, data []byte) error {
	var e struct {
		Build, Cut, Groups uint64
		Detail             string
	}
	if name != "" {
		if err := json.Unmarshal(data, &e); err != nil {
			return err
		}
	}
	var err error
	switch name {
	case "build":
		_, err = fmt.Fprintf(t.stderr, "build %d of cut %d is live: any group may be another\n", e.Build, e.Cut)
	case "more":
		_, err = fmt.Fprintf(t.stderr, "%d more groups have changed\n", e.Groups)
	case "problem":
		_, err = fmt.Fprintln(t.stderr, e.Detail)
	case "":
		if t.aligned {
			err = t.line(data)
		} else {
			_, err = t.stdout.Write(append(data, '\n'))
		}
		if t.shown++; err == nil && t.shown == t.limit {
			err = errEnough
		}
	}
	return err
}

// line prints a group in columns, which grow with what is in them; with their names whenever one has grown.
func (t *tailer) line(data []byte) error {
	var group struct {
		Dimensions, Measures json.RawMessage
		Position             uint64
	}
	if err := json.Unmarshal(data, &group); err != nil {
		return err
	}
	names, cells := []string{"position"}, []string{strconv.FormatUint(group.Position, 10)}
	for _, part := range []json.RawMessage{group.Dimensions, group.Measures} {
		if err := eachField(part, func(name string, value json.RawMessage) {
			names, cells = append(names, name), append(cells, cell(value))
		}); err != nil {
			return err
		}
	}
	grown := len(t.widths) != len(names)
	if grown {
		t.widths = make([]int, len(names))
	}
	for i := range names {
		if n := max(len([]rune(names[i])), len([]rune(cells[i]))); n > t.widths[i] {
			t.widths[i], grown = n, true
		}
	}
	if grown {
		if err := t.columns(names); err != nil {
			return err
		}
	}
	return t.columns(cells)
}

func (t *tailer) columns(cells []string) error {
	var b strings.Builder
	for i, c := range cells {
		fmt.Fprintf(&b, "%-*s  ", t.widths[i], c)
	}
	_, err := io.WriteString(t.stdout, strings.TrimRight(b.String(), " ")+"\n")
	return err
}

// eachField calls f with the fields of a JSON object, in its order.
func eachField(object json.RawMessage, f func(name string, value json.RawMessage)) error {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		f(fmt.Sprint(name), value)
	}
	return nil
}
