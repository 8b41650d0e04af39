package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"watershed/internal/bounded"
)

// FuzzConfig reads a configuration file: every mistake is an error that names the file, and what is
// accepted is a setting that exists.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"", "# nothing\n", "stream: EVENTS\nlog_max_bytes: 1048576\n", "stream: [1]\n", "stream:\n", "stream: a\nstream: b\n", "nope: 1\n", "- a\n", "stream: &a x\nlisten: *a\n",
		"log_replicas: 3.5\n", "listen: \"127.0.0.1:1\"\n---\ntoken: |\n  a\n  b\n", "<<: {stream: x}\n", "? stream\n: x\n", "{stream: x, listen: y}", "log_level: loud\n",
		"stream: !!binary aGk=\n", "token: 2001-01-01\n", "history: .inf\n",
	} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "watershed.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c := &config{File: path}
		bounded.Run(t, func() {
			none := func(string) string { return "" }
			values, err := c.readFile(none)
			if err != nil {
				if !strings.Contains(err.Error(), path) {
					t.Errorf("the error does not name the file: %v", err)
				}
				return
			}
			known := c.known()
			for key := range values {
				if !known[key] {
					t.Errorf("setting %q does not exist", key)
				}
			}
			whole := &config{}
			root := &cobra.Command{}
			whole.register(root)
			whole.File = path
			if err := whole.resolve(root, none); err != nil {
				_ = err.Error()
			}
		})
	})
}
