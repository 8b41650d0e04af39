package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// formats maps --format to what the endpoint is asked for.
var queryFormats = []string{"table", "json", "csv", "ndjson"}

func (a *app) queryCmd() *cobra.Command {
	var format string
	var min uint64
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "query SQL",
		Short: "Ask the SQL endpoint",
		Long: `Run one read-only SQL statement at the endpoint of ` + "`up` or `serve`" + ` and print the answer. Every
view is a table of its name; <view>_states holds its mergeable states. With --min-position the
answer shows the log up to that position, such as the one that a publish was acknowledged with:
it waits until all views do.`,
		Example: `  watershed query 'SELECT * FROM days ORDER BY day LIMIT 5'
  watershed query --format csv 'SELECT origin, sum(flights) FROM departures_by_hour GROUP BY origin'
  echo 'SELECT count() FROM days' | watershed query -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(queryFormats, format) {
				return usage("--format %q: want %s", format, strings.Join(queryFormats, ", "))
			}
			sql := args[0]
			if sql == "-" {
				b, err := io.ReadAll(io.LimitReader(a.stdin, 1<<20))
				if err != nil {
					return err
				}
				sql = string(b)
			}
			if err := a.locate(); err != nil {
				return err
			}
			ask := url.Values{}
			if min > 0 {
				ask.Set("min_position", strconv.FormatUint(min, 10))
			}
			if wait > 0 {
				ask.Set("max_wait", strconv.FormatFloat(wait.Seconds(), 'f', -1, 64))
			}
			return a.query(cmd.Context(), sql, format, ask)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", strings.Join(queryFormats, ", "))
	cmd.Flags().Uint64Var(&min, "min-position", 0, "`position` of the log that the answer must show")
	cmd.Flags().DurationVar(&wait, "max-wait", 0, "how long to wait for it (default 5s)")
	return cmd
}

func (a *app) query(ctx context.Context, sql, format string, ask url.Values) error {
	ask.Set("format", format)
	if format == "table" {
		ask.Set("format", "json")
	}
	u := url.URL{Scheme: "http", Host: a.cfg.Listen, Path: "/v1/sql", RawQuery: ask.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(sql))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/plain")
	if a.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+a.cfg.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("nothing answers at %s: start `watershed up` or `watershed serve`", a.cfg.Listen)
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problemError(resp)
	}
	if format != "table" {
		if _, err := io.Copy(a.stdout, resp.Body); err != nil {
			return fmt.Errorf("the answer broke off: %w", err)
		}
		return nil
	}
	return a.printTable(resp.Body)
}

// problemError is the endpoint's problem+json as an error.
func problemError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what is there is shown
	var p struct {
		Code   string `json:"code"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(b, &p); err != nil || p.Code == "" {
		return fmt.Errorf("the endpoint answered %s: %s", resp.Status, bytes.TrimSpace(b))
	}
	if p.Detail == "" {
		p.Detail = p.Title
	}
	return fmt.Errorf("%s (%s)", p.Detail, p.Code)
}

// printTable prints an answer in columns, numbers as they came.
func (a *app) printTable(body io.Reader) error {
	var answer struct {
		Meta []struct{ Name string }
		Data []map[string]json.RawMessage
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	cells := make([]string, len(answer.Meta))
	for i, m := range answer.Meta {
		cells[i] = m.Name
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
	for _, row := range answer.Data {
		for i, m := range answer.Meta {
			cells[i] = cell(row[m.Name])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

func cell(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return strings.NewReplacer("\t", " ", "\n", " ").Replace(s)
	}
	return string(raw)
}
