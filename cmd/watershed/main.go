// Command watershed is a Lambda-architecture analytics pipeline: events from a log, views
// kept fresh by a stream worker and recomputed from history by a batch, both merged in
// ClickHouse. Each file here is one command; wire.go and its neighbours connect the layers.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"watershed/internal/devserver"
)

// version is set when the program is linked.
var version = "dev"

func main() {
	devserver.Child() // the embedded ClickHouse is this program, started once more
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills at once, which is as safe
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program. It returns the exit code: 0 ok, 1 failed, 2 usage or
// configuration, 3 an audit or a verification found a difference.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	a.endTraces()
	return a.exit(err)
}
