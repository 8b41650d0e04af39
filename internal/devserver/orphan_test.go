package devserver_test

import (
	"bufio"
	"os"
	osexec "os/exec"
	"testing"

	"watershed/internal/devserver/devtest"
)

// parentVariable makes TestParent start a server on the directory it names, and wait to be killed.
const parentVariable = "WATERSHED_TEST_PARENT_DIR"

// TestParent is the process that TestAServerDiesWithItsParent kills. By itself it has nothing to do.
func TestParent(t *testing.T) {
	dir := os.Getenv(parentVariable)
	if dir == "" {
		return
	}
	c := devtest.StartClickHouse(t, devtest.Config(dir))
	conn := asAdmin(t, c)
	exec(t, conn, "CREATE DATABASE watershed", "CREATE TABLE watershed.rows (n UInt64) ENGINE = MergeTree ORDER BY n",
		"INSERT INTO watershed.rows SELECT number FROM numbers(10)")
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
}

// A killed parent cannot tell its child anything; the child must go all the same, and the directory
// must be usable by whoever starts next.
func TestAServerDiesWithItsParent(t *testing.T) {
	dir := t.TempDir()
	parent := osexec.Command(os.Args[0], "-test.run=^TestParent$")
	parent.Env = append(os.Environ(), parentVariable+"="+dir)
	output, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if killErr := parent.Process.Kill(); killErr != nil {
		t.Error(killErr)
	}
	_ = parent.Wait() // it was killed: the status says so
	if err != nil || line != "ready\n" {
		t.Fatalf("the parent said %q, %v", line, err)
	}
	// The orphan holds the directory's lock until it is gone, so this start is the proof.
	next := devtest.StartClickHouse(t, devtest.Config(dir))
	if got := number(t, asAdmin(t, next), "SELECT count() FROM watershed.rows"); got != 10 {
		t.Errorf("rows after the parent was killed: got %d; want 10", got)
	}
}
