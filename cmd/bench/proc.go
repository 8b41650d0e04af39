package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A cost is what a process has taken.
type cost struct {
	CPU    float64 `json:"cpu_seconds"` // of all threads, user and system
	PeakMB float64 `json:"peak_mb"`     // resident memory at its highest
}

// ticksPerSecond is the unit of /proc/PID/stat on Linux, whatever the kernel's own.
const ticksPerSecond = 100

// costOf reads a process's cost so far.
func costOf(pid int) (cost, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return cost{}, err
	}
	// The second field is the program's name in parentheses, which may hold spaces.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return cost{}, errors.New("/proc/PID/stat is short")
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err := errors.Join(err, err2); err != nil {
		return cost{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return cost{}, err
	}
	kb, err := strconv.ParseFloat(procField(status, "VmHWM"), 64)
	return cost{CPU: (user + system) / ticksPerSecond, PeakMB: kb / 1024}, err
}

// procField is the first word behind "name:" on a line of its own.
func procField(text []byte, name string) string {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == name {
			if words := strings.Fields(value); len(words) > 0 {
				return words[0]
			}
		}
	}
	return ""
}

// resetPeak makes the highest resident memory of a process what it is now.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// pin binds this process and those that it starts from now on to n of the machine's cores.
func pin(n int, all unix.CPUSet) error {
	var set unix.CPUSet
	for cpu := 0; set.Count() < n; cpu++ {
		if cpu > 1<<12 {
			return fmt.Errorf("this process may use %d cores, not %d", all.Count(), n)
		}
		if all.IsSet(cpu) {
			set.Set(cpu)
		}
	}
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, task := range tasks { // threads that begin meanwhile have the binding of one that is listed
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("bind to %d cores: %w", n, err)
		}
	}
	runtime.GOMAXPROCS(n)
	return nil
}

// A machine is where figures were taken.
type machine struct {
	CPU      string  `json:"cpu"`
	Cores    int     `json:"cores"` // of the machine; the benchmark may use fewer
	MemoryGB float64 `json:"memory_gb"`
	System   string  `json:"system"`
	Load     string  `json:"load"` // average of a minute when the benchmark began
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		kb, _ := strconv.ParseFloat(procField(text, "MemTotal"), 64) // the kernel's own number
		m.MemoryGB = float64(int(kb/(1<<20)*10)) / 10
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(text), " ")
	}
	return m
}
