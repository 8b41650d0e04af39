package devserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// waitReady returns when the admin's query is answered, when the child is gone, or with the context.
// The HTTP interface opens last, so its answer speaks for both.
func (c *ClickHouse) waitReady(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		err := c.ask(ctx, client)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return c.Err()
		default:
		}
		if waitErr := pause(ctx); waitErr != nil {
			return fmt.Errorf("it does not answer on %s: %w; it said:\n%s", c.http, errors.Join(waitErr, err), c.output)
		}
	}
}

func (c *ClickHouse) ask(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.http+"/?query=SELECT+1", nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-ClickHouse-User", adminUser)
	request.Header.Set("X-ClickHouse-Key", c.passwords.Admin)
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if err == nil && (answer.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != "1") {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return err
}

// pause waits a little before something is tried again.
func pause(ctx context.Context) error {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// choosePorts replaces each 0 by a port that is free at this moment. The two differ.
func choosePorts(first, second int) (int, int, error) {
	ports := [2]int{first, second}
	for i, port := range ports {
		if port != 0 {
			continue
		}
		listener, err := net.Listen("tcp", loopback+":0")
		if err != nil {
			return 0, 0, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close() // after both are chosen
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], nil
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailSize; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
