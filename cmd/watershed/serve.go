package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) serveCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the SQL/HTTP endpoint",
		Long: `Serve the views over HTTP: POST /v1/sql for SQL, GET /v1/views/{view} for typed queries,
/v1/status, /livez and /readyz, described by /openapi.json. Without a token it listens on
loopback alone. Queries run as the read-only ClickHouse user; set --reader-user.

Events are taken in at POST /v1/events/{type}, unless --ingest=false. That is a right of its
own: with WATERSHED_TOKEN, nobody has it who has none of WATERSHED_INGEST_TOKENS.`,
		Example: `  watershed serve --nats nats://nats:4222 --clickhouse clickhouse:9000 --reader-user reader
  WATERSHED_TOKEN=… watershed serve --listen 0.0.0.0:8484
  curl --data 'SELECT * FROM days LIMIT 3' http://127.0.0.1:8484/v1/sql`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.leave(cmd.Context(), "serve", a.endpoint) },
	}
}

func (a *app) endpoint(ctx context.Context) error {
	if _, _, err := a.adminConfig(); err != nil {
		return err
	}
	e, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	a.countIngest()
	return a.withAdmin(ctx, e, nil, func(ctx context.Context) error {
		return a.serve(ctx, e, nil, func(addr string) error {
			a.log.Info("serving", "address", "http://"+addr)
			return nil
		})
	})
}
