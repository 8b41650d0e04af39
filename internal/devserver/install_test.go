package devserver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"watershed/internal/devserver"
)

func TestWhereTheLibraryIsLookedFor(t *testing.T) {
	installed, err := devserver.Library("")
	if err != nil {
		t.Fatal(err)
	}
	if explicit, err := devserver.Library(installed); err != nil || explicit != installed {
		t.Errorf("explicit path: got %s, %v; want %s", explicit, err, installed)
	}

	// Outside of the module the user's data directory remains.
	t.Chdir(t.TempDir())
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	_, err = devserver.Library("")
	var missing *devserver.NotInstalledError
	if !errors.As(err, &missing) {
		t.Fatalf("outside of the module: got %v; want a NotInstalledError", err)
	}
	want := missing.Looked[len(missing.Looked)-1]
	if !strings.HasPrefix(want, filepath.Join(data, "watershed")) {
		t.Fatalf("looked for last: got %s; want a path below %s", want, data)
	}
	if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := devserver.Library(""); err != nil || got != want {
		t.Errorf("in the data directory: got %s, %v; want %s", got, err, want)
	}
}

func TestFlightsAreInstalled(t *testing.T) {
	path, err := devserver.FlightsPath()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	magic := make([]byte, 4)
	if _, err := file.Read(magic); err != nil || string(magic) != "PAR1" {
		t.Errorf("%s begins with %q, %v; want a Parquet file", path, magic, err)
	}
}
