package devserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// NotInstalledError means that a file which npm brings is not there. Its message is for the user and
// names the command that installs it.
type NotInstalledError struct {
	What   string   // in words
	Looked []string // the paths that were tried, in order
}

func (e *NotInstalledError) Error() string {
	text := e.What + " is not installed: run `make setup`, or `npm ci --prefix " + engineDir + "`, in the source tree; looked for"
	for _, path := range e.Looked {
		text += "\n  " + path
	}
	return text
}

// engineDir holds the package.json that pins what npm installs, relative to the module's root.
const engineDir = "internal/devserver/engine"

// Library is the path of the ClickHouse library. It is explicit if that is not empty; otherwise the
// one that npm installed below the module that holds the working directory or the executable, or below
// the user's data directory ($XDG_DATA_HOME/watershed, by default ~/.local/share/watershed). The error
// is a *NotInstalledError.
func Library(explicit string) (string, error) {
	what := fmt.Sprintf("ClickHouse for %s/%s", runtime.GOOS, runtime.GOARCH)
	if explicit != "" {
		return firstFile(what, []string{explicit})
	}
	name := libraryPackage(runtime.GOOS, runtime.GOARCH)
	if name == "" {
		return "", fmt.Errorf("no package of %s is pinned in "+engineDir+": name a libchdb of your own, or use a ClickHouse server's address", what)
	}
	return installed(what, filepath.Join("@chdb", name, "libchdb.so"))
}

// FlightsPath is the path of the demo's real input: 3,000,000 flights as one Parquet file. It is
// searched for like the library. The error is a *NotInstalledError.
func FlightsPath() (string, error) {
	return installed("the flights data set", filepath.Join("vega-datasets", "data", "flights-3m.parquet"))
}

// libraryPackage is the npm package with the library for a platform, empty if engine/package.json has none.
func libraryPackage(system, processor string) string {
	if system == "linux" && processor == "amd64" {
		return "lib-linux-x64-gnu"
	}
	return ""
}

// installed finds a file that npm put into a node_modules directory of ours.
func installed(what, name string) (string, error) {
	var candidates []string
	if dir, err := os.Getwd(); err == nil {
		candidates = append(candidates, upward(dir, name)...)
	}
	if executable, err := os.Executable(); err == nil {
		candidates = append(candidates, upward(filepath.Dir(executable), name)...)
	}
	data := os.Getenv("XDG_DATA_HOME")
	if home, err := os.UserHomeDir(); data == "" && err == nil {
		data = filepath.Join(home, ".local", "share")
	}
	if data != "" {
		candidates = append(candidates, filepath.Join(data, "watershed", "node_modules", name))
	}
	return firstFile(what, candidates)
}

// upward lists where name would be if dir were in the module. The module is known by
// the engine's package.json; outside of it there is no candidate.
func upward(dir, name string) []string {
	for {
		_, err := os.Stat(filepath.Join(dir, engineDir, "package.json"))
		if err == nil {
			return []string{filepath.Join(dir, engineDir, "node_modules", name)}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

func firstFile(what string, candidates []string) (string, error) {
	for _, path := range candidates {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() {
			return filepath.Abs(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for %s: %w", what, err)
		}
	}
	return "", &NotInstalledError{What: what, Looked: candidates}
}
