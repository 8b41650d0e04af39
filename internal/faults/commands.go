package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// persist runs a command until it succeeds.
func (l *life) persist(ctx context.Context, args ...string) (string, error) {
	for {
		out, err := l.command(ctx, "", args...)
		if err == nil || pause(ctx, restartAfter) != nil {
			return out, err
		}
	}
}

// once runs a command once.
func (l *life) once(ctx context.Context, args ...string) (string, error) {
	return l.command(ctx, "", args...)
}

// command runs a watershed command as an operator would.
func (l *life) command(ctx context.Context, place string, args ...string) (string, error) {
	cmd := command(l.bin, args, l.env["batch"], place)
	defer context.AfterFunc(ctx, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil {
		l.tally.spent("commands", cmd.ProcessState)
	}
	return string(out), err
}

// says waits until the worker has said something since an offset of its log. With hurry batches run without pause.
func (l *life) says(ctx context.Context, from int64, hurry bool, text string) error {
	for !strings.Contains(l.speed.since(from), text) {
		if hurry {
			l.batch.hurry()
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the worker does not say that %s: %w", text, err)
		}
	}
	return nil
}

// sql runs a statement in ClickHouse as its administrator.
func (l *life) sql(ctx context.Context, statement string) (string, error) {
	server := l.clickhouse.server()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+server.HTTPAddr()+"/?database=watershed", strings.NewReader(statement))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(server.Admin())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", statement, firstLine(string(body)))
	}
	return strings.TrimSpace(string(body)), err
}
