package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/serving/api"
	"watershed/serving/store"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// clickhouse speaks to the real server as one user, over its HTTP interface.
type clickhouse struct {
	addr, database, user, password string
}

// exception is ClickHouse's own error.
type exception struct {
	code    int
	message string
}

func (e *exception) Error() string   { return e.message }
func (e *exception) Code() int       { return e.code }
func (e *exception) Message() string { return e.message }

var exceptionText = regexp.MustCompile(`Code: ([0-9]+)\. DB::Exception: `)

func (c clickhouse) post(ctx context.Context, sql string, settings url.Values) (*http.Response, error) {
	query := url.Values{"database": {c.database}}
	for k, v := range settings {
		query[k] = v
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.addr+"/?"+query.Encode(), strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-ClickHouse-User", c.user)
	r.Header.Set("X-ClickHouse-Key", c.password)
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return nil, exceptionOf(string(text))
}

func exceptionOf(text string) error {
	at := exceptionText.FindStringSubmatchIndex(text)
	if at == nil {
		return fmt.Errorf("ClickHouse: %s", text)
	}
	code, err := strconv.Atoi(text[at[2]:at[3]])
	return errors.Join(&exception{code, strings.TrimSpace(text[at[1]:])}, err)
}

// text is a statement's whole output.
func (c clickhouse) text(ctx context.Context, sql string, settings url.Values) (string, error) {
	resp, err := c.post(ctx, sql, settings)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (c clickhouse) must(t testing.TB, sql string) string {
	t.Helper()
	out, err := c.text(t.Context(), sql, nil)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// storeReader makes store's reader ours, as the program does.
type storeReader struct{ *store.Reader }

func (r storeReader) Query(ctx context.Context, q api.Query) (api.Rows, error) {
	rows, err := r.Reader.Query(ctx, store.Query{SQL: q.SQL, Params: q.Parameters, MaxTime: q.Timeout, MaxRows: q.Rows})
	if err != nil {
		return nil, err
	}
	return storeRows{rows}, nil
}

type storeRows struct{ *store.Rows }

func (r storeRows) Columns() []api.Column {
	out := make([]api.Column, len(r.Rows.Columns))
	for i, c := range r.Rows.Columns {
		out[i] = api.Column(c)
	}
	return out
}

func (r storeRows) Stats() api.Stats { return api.Stats(r.Rows.Stats()) }

func openReader(t testing.TB, c *devserver.ClickHouse, database string) api.Reader {
	t.Helper()
	user, password := c.Reader()
	r, err := store.OpenReader(t.Context(), store.Config{Addr: c.Addr(), Database: database, User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return storeReader{r}
}
