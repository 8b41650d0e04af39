package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// adminLogged is the address of the admin port that a process says in its log it has.
func adminLogged(ts *testscript.TestScript, log string) string {
	at := regexp.MustCompile(`admin port is up"? addr=([0-9.:]+)`).FindStringSubmatch(ts.ReadFile(log))
	if at == nil {
		ts.Fatalf("%s does not say where the admin port is", log)
	}
	return at[1]
}

// askLogged asks the admin port that a process says in its log it has, or puts a body there:
// asks LOG STATUS PATH REGEXP [BODY].
func askLogged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 || len(args) > 5 {
		ts.Fatalf("usage: asks LOG STATUS PATH REGEXP [BODY]")
	}
	method, body := http.MethodGet, ""
	if len(args) == 5 {
		method, body = http.MethodPut, args[4]
	}
	req, err := http.NewRequest(method, "http://"+adminLogged(ts, args[0])+args[2], strings.NewReader(body))
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if fmt.Sprint(resp.StatusCode) != args[1] || !regexp.MustCompile("(?m)"+args[3]).Match(answer) {
		ts.Fatalf("%s %s: status %d, %s; want %s, %s", method, args[2], resp.StatusCode, answer, args[1], args[3])
	}
}

// healthyLogged has the program itself ask the admin port that a process says in its log it has: healthy LOG.
func healthyLogged(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	ts.Check(ts.Exec("watershed", "health", "--admin", adminLogged(ts, args[0])))
}
