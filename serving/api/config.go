package api

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Config says where the endpoint listens, who may ask, and how much. The zero value is useful.
type Config struct {
	// Addr is the host:port to listen on; empty: 127.0.0.1:8484. Anything but loopback needs Tokens.
	Addr string
	// Tokens are what a client must show one of, as bearer token or as the password of basic
	// authentication with any user name. None: everybody who reaches loopback may ask. The endpoint
	// speaks plain HTTP; beyond a trusted network, put a TLS proxy before it.
	Tokens []string
	// IngestTokens are what a client that publishes events must show one of. None: if there are no Tokens
	// either, everybody who reaches loopback may publish, and otherwise nobody may, since the right to read is
	// not the right to write. A token that stands in both lists has both rights.
	IngestTokens []string
	// Admin leaves out all that answers with events' values: what is left is /metrics, /v1/status, /livez, /healthz
	// and /readyz. It adds /log/level, and to those who ask on this machine /debug/pprof. Deps need no Reader then.
	Admin bool

	Timeout    time.Duration // of a query that asks for none; 0: 30 s
	MaxTimeout time.Duration // the most that a query may ask for; 0: 60 s
	Rows       uint64        // the longest result of a query that asks for no other; 0: 1 million
	MaxRows    uint64        // the most that a query may ask for; 0: 10 million
	Tails      int           // tails that are open at once, at most; 0: 128
}

const (
	maxBody       = 1 << 20          // bytes of SQL
	headerTimeout = 10 * time.Second // for a client to send its request
	idleTimeout   = 2 * time.Minute
	grace         = 3 * time.Second // for running answers at shutdown; a process leaves within 5
	minToken      = 16              // characters
)

// withDefaults is the config with what was left out.
func (c Config) withDefaults() Config {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:8484"
	}
	if c.MaxTimeout == 0 {
		c.MaxTimeout = 60 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = min(30*time.Second, c.MaxTimeout)
	}
	if c.MaxRows == 0 {
		c.MaxRows = 10_000_000
	}
	if c.Tails <= 0 {
		c.Tails = 128
	}
	if c.Rows == 0 {
		c.Rows = min(1_000_000, c.MaxRows)
	}
	return c
}

// Validate says all that is wrong with the config.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	host, _, err := net.SplitHostPort(c.Addr)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("address %q: want host:port, like 127.0.0.1:8484", c.Addr))
	case !isLoopback(host) && len(c.Tokens) == 0:
		errs = append(errs, fmt.Errorf("address %q is not loopback: without a token, only loopback is listened on; give a token or listen on 127.0.0.1", c.Addr))
	}
	for what, tokens := range map[string][]string{"token": c.Tokens, "ingest token": c.IngestTokens} {
		for i, t := range tokens {
			if len(t) < minToken || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
				errs = append(errs, fmt.Errorf("%s %d: want at least %d characters, printable ASCII without spaces", what, i+1, minToken))
			}
		}
	}
	if c.Timeout < 0 || c.Timeout > c.MaxTimeout {
		errs = append(errs, fmt.Errorf("timeout %s: want more than 0 and at most the greatest allowed, %s", c.Timeout, c.MaxTimeout))
	}
	if c.Rows > c.MaxRows {
		errs = append(errs, fmt.Errorf("row limit %d: want at most the greatest allowed, %d", c.Rows, c.MaxRows))
	}
	return errors.Join(errs...)
}

// isLoopback reports whether a host without port can only be this machine.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
