package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// configFile is read from the working directory when --config does not say otherwise.
const configFile = "watershed.yaml"

// A config is what all commands share. Each setting is a flag --x-y, an environment variable
// WATERSHED_X_Y and a key x_y of watershed.yaml; the first of these that is there counts.
type config struct {
	File        string
	Dir         string
	Definitions string
	LogLevel    string
	LogFormat   string

	NATS            string
	NATSCredentials string
	Stream          string
	LogMaxBytes     int64
	LogReplicas     int

	ClickHouse         string
	ClickHouseUser     string
	ClickHousePassword string // never a flag: command lines are public
	Database           string
	ReaderUser         string
	ReaderPassword     string
	ClickHouseLib      string
	ClickHouseHistory  string
	ClickHouseCluster  string

	History string
	Listen  string
	Admin   string // empty: no admin port
	Token   string

	Ingest       bool
	IngestTokens string // separated by spaces

	tuning

	given map[string]bool // settings that did not come from their default
}

// secrets are the settings that are not flags.
var secretHelp = `
Secrets are never flags. Set them in the environment (or in the configuration file):
  WATERSHED_CLICKHOUSE_PASSWORD, WATERSHED_READER_PASSWORD, WATERSHED_TOKEN
  WATERSHED_INGEST_TOKENS, one or several with spaces between them, for who publishes over HTTP`

func (c *config) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&c.File, "config", "", "configuration `file` (default ./"+configFile+" if it is there)")
	f.StringVar(&c.Dir, "dir", "watershed-data", "`directory` of the embedded engines and their history")
	f.StringVar(&c.Definitions, "definitions", "", "`directory` of event and view files (default ./schemas, or the shipped example)")
	f.StringVar(&c.LogLevel, "log-level", "info", "`level` of messages: debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "`format` of messages: text or json")
	f.StringVar(&c.NATS, "nats", "", "`address` of NATS, nats://host:port (default: the embedded server of \"up\")")
	f.StringVar(&c.NATSCredentials, "nats-credentials", "", "NATS credentials `file`")
	f.StringVar(&c.Stream, "stream", "WATERSHED", "JetStream `stream` that is the log")
	f.Int64Var(&c.LogMaxBytes, "log-max-bytes", 8<<30, "limit of the log in `bytes`; an existing one is raised to it, never lowered")
	f.IntVar(&c.LogReplicas, "log-replicas", 1, "`replicas` of the log when its stream is created")
	f.StringVar(&c.ClickHouse, "clickhouse", "", "`address` of ClickHouse, host:port of its native protocol (default: the embedded server of \"up\")")
	f.StringVar(&c.ClickHouseUser, "clickhouse-user", "default", "ClickHouse `user` that writes")
	f.StringVar(&c.Database, "database", "watershed", "ClickHouse `database`")
	f.StringVar(&c.ReaderUser, "reader-user", "", "ClickHouse `user` of queries, read-only; the endpoint needs one")
	f.StringVar(&c.ClickHouseLib, "clickhouse-lib", "", "`library` of the embedded ClickHouse (default: where npm put it)")
	f.StringVar(&c.ClickHouseHistory, "clickhouse-history", "", "where ClickHouse finds history, for --engine clickhouse: a `path` on its machine or a URL in object storage (default: that of --history)")
	f.StringVar(&c.ClickHouseCluster, "clickhouse-cluster", "", "`cluster` of ClickHouse all of whose machines read history, which is then at a URL")
	f.StringVar(&c.History, "history", "", "`directory` of the Delta tables (default DIR/history)")
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8484", "`address` of the SQL/HTTP endpoint; anything but loopback needs a token")
	f.StringVar(&c.Admin, "admin", "", "`address` of the admin port of up, speed and serve: metrics, health, log level, profiles; anything but loopback needs a token (default: none)")
	f.BoolVar(&c.Ingest, "ingest", true, "take events in at POST /v1/events/TYPE; where a token is set, publishing needs one of its own")
	c.tuning.register(f)
	root.SetUsageTemplate(root.UsageTemplate() + secretHelp + "\n")
}

// secrets maps the settings that are not flags to where they go.
func (c *config) secrets() map[string]*string {
	return map[string]*string{
		"clickhouse-password": &c.ClickHousePassword,
		"reader-password":     &c.ReaderPassword,
		"token":               &c.Token,
		"ingest-tokens":       &c.IngestTokens,
	}
}

// resolve fills what the command line left open from the environment, then from the file.
func (c *config) resolve(cmd *cobra.Command, getenv func(string) string) error {
	c.given = make(map[string]bool)
	flags := cmd.Root().PersistentFlags()
	file, err := c.readFile(getenv)
	if err != nil {
		return err
	}
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			c.given[f.Name] = true
			return
		}
		from, value, ok := lookup(f.Name, getenv, file)
		if !ok {
			return
		}
		c.given[f.Name] = true
		if err := f.Value.Set(value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not a valid value: %w", from, value, err))
		}
	})
	for name, to := range c.secrets() {
		if _, value, ok := lookup(name, getenv, file); ok {
			*to = value
		}
	}
	return errors.Join(append(errs, c.validate())...)
}

// A setting is a value of the configuration file, and where it stands there.
type setting struct{ value, from string }

// lookup finds a setting in the environment or the file, and says where it came from.
func lookup(name string, getenv func(string) string, file map[string]setting) (from, value string, ok bool) {
	env := envName(name)
	if v := getenv(env); v != "" {
		return env, v, true
	}
	s, ok := file[strings.ReplaceAll(name, "-", "_")]
	return s.from, s.value, ok
}

// envName is the environment variable of a setting.
func envName(name string) string {
	return "WATERSHED_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func (c *config) validate() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return fmt.Errorf("log level %q: want debug, info, warn or error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("log format %q: want text or json", c.LogFormat)
	}
	return c.tuning.validate()
}

func (c *config) level() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // checked by validate
	return level
}

// readFile reads the configuration file: one flat mapping, no key twice, none unknown.
func (c *config) readFile(getenv func(string) string) (map[string]setting, error) {
	path, must := c.File, true
	if path == "" {
		path = getenv(envName("config"))
	}
	if path == "" {
		path, must = configFile, false
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	tree, err := parser.ParseBytes(text, 0)
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil && syntax.Token.Position != nil {
		at := syntax.Token.Position
		return nil, fmt.Errorf("%s:%d:%d: %s", path, at.Line, at.Column, syntax.Message)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	known := c.known()
	values := make(map[string]setting)
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		m, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			return nil, fmt.Errorf("%s: want settings, one `key: value` per line", path)
		}
		for _, kv := range m.Values {
			key, at := kv.Key.GetToken().Value, kv.Key.GetToken().Position
			if !known[key] {
				return nil, fmt.Errorf("%s:%d:%d: unknown setting %q; there are %s", path, at.Line, at.Column, key, strings.Join(sortedKeys(known), ", "))
			}
			scalar, ok := kv.Value.(ast.ScalarNode)
			if !ok {
				return nil, fmt.Errorf("%s:%d:%d: setting %s wants one value", path, at.Line, at.Column, key)
			}
			values[key] = setting{fmt.Sprint(scalar.GetValue()), fmt.Sprintf("%s:%d:%d: setting %s", path, at.Line, at.Column, key)}
		}
	}
	return values, nil
}

// known is the set of keys that a configuration file may have.
func (c *config) known() map[string]bool {
	keys := make(map[string]bool)
	root := &cobra.Command{}
	new(config).register(root)
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" {
			keys[strings.ReplaceAll(f.Name, "-", "_")] = true
		}
	})
	for name := range c.secrets() {
		keys[strings.ReplaceAll(name, "-", "_")] = true
	}
	return keys
}
