package devserver

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// childVariable marks the environment of a process that shall become ClickHouse.
const childVariable = "WATERSHED_CLICKHOUSE_CHILD"

// Child does not return in a process that StartClickHouse started: it runs ClickHouse there and exits.
// In every other process it does nothing. Call it first in main and in TestMain.
func Child() {
	if os.Getenv(childVariable) == "" {
		return
	}
	if err := runLibrary(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveQueries is what the child executes. Reading standard input to its end makes the server live
// exactly as long as the pipe that the parent holds, whatever the parent dies of.
const serveQueries = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT count() FROM table"

// servePrivileges are those that the user of serveQueries needs, and serveCount is the number of
// queries that ClickHouse counts for them: one more creates the table that stands for the input.
var servePrivileges = [...]string{
	"SYSTEM LISTEN ON *.*",
	"CREATE ARBITRARY TEMPORARY TABLE ON *.*",
	"TABLE ENGINE ON File",
}

const serveCount = 4

// childArguments are those of the process: the library, and the command line that it is given.
func childArguments(library, config, data string, tcpPort, httpPort int) []string {
	return []string{
		library,
		"clickhouse",
		"--config-file=" + config,
		"--path=" + data,
		"--listen_host=" + loopback,
		fmt.Sprintf("--tcp_port=%d", tcpPort),
		fmt.Sprintf("--http_port=%d", httpPort),
		"--log-level=information", // as the configuration says, which this command line would overrule with "trace"
		"--input-format", "LineAsString", "--structure", "line String",
		"--query", serveQueries,
	}
}

// runLibrary runs the command line in the library on this thread and returns when it is through.
func runLibrary(library string, arguments []string) error {
	runtime.LockOSThread() // C++ keeps thread-local state between calls
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("load ClickHouse: %w", err)
	}
	var commandLine func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	purego.RegisterLibFunc(&commandLine, handle, "chdb_query_cmdline")

	var pins runtime.Pinner
	defer pins.Unpin()
	argv := make([]*byte, 0, len(arguments)+1)
	for _, a := range arguments {
		text := append([]byte(a), 0)
		pins.Pin(&text[0])
		argv = append(argv, &text[0])
	}
	argv = append(argv, nil)
	pins.Pin(&argv[0])
	if commandLine(int32(len(arguments)), unsafe.Pointer(&argv[0])) == nil {
		return errors.New("run ClickHouse: the library gave no result")
	}
	return nil // an error of ClickHouse's has gone to standard error already
}
