package store

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// client is a pool of connections, and the database that its statements are about.
type client struct {
	conn     driver.Conn
	addr     string
	database string
	damage   atomic.Bool // an answer was that a table cannot be read
}

const dialTimeout = 5 * time.Second

func connect(addr, database, user, password string, settings clickhouse.Settings) (*client, error) {
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:         []string{addr},
		Auth:         clickhouse.Auth{Username: user, Password: password, Database: database},
		Settings:     settings,
		DialTimeout:  dialTimeout,
		DialContext:  dial,
		ReadTimeout:  10 * time.Minute, // of one packet: a long statement may be silent
		MaxOpenConns: 64,
		MaxIdleConns: 16,
	})
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, addr: addr, database: database}, nil
}

// own are the settings of the writers' side.
func own() clickhouse.Settings {
	return clickhouse.Settings{
		"async_insert":                     0, // 1 would acknowledge what is only queued
		"materialized_views_ignore_errors": 0, // fences are errors of materialized views
		"max_partitions_per_insert_block":  0,
	}
}

// exec carries out a statement.
func (c *client) exec(ctx context.Context, sql string) error {
	if err := c.conn.Exec(ctx, sql); err != nil {
		return c.noted(wrong(err, true))
	}
	return nil
}

// rows asks for rows, whose columns are T's fields by their ch tags.
func rows[T any](ctx context.Context, c *client, sql string) ([]T, error) {
	var out []T
	if err := c.conn.Select(ctx, &out, sql); err != nil {
		return nil, c.noted(wrong(err, true))
	}
	return out, nil
}

// noted remembers that an error is about a table that cannot be read.
func (c *client) noted(err error) error {
	if isDamaged(err) {
		c.damage.Store(true)
	}
	return err
}

// name is a table's full quoted name.
func (c *client) name(table string) string { return quote(c.database) + "." + quote(table) }

// quote writes an identifier.
func quote(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

// literal writes a string.
func literal(s string) string {
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(s) + "'"
}

// wrong makes an *Error of what the driver returned. Sent says whether the statement, or the
// rows of an insert, were on their way.
func wrong(err error, sent bool) error {
	if known := (*Error)(nil); err == nil || errors.As(err, &known) {
		return err
	}
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "dial" {
		sent = false
	}
	var x *clickhouse.Exception
	if errors.As(err, &x) {
		return &Error{code: int(x.Code), message: plainMessage(int(x.Code), x.Message), sent: sent}
	}
	return &Error{cause: err, sent: sent}
}
