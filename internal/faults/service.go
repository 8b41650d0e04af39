package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// restartAfter is how long a service stays down before it is started again, as systemd would do.
const restartAfter = 100 * time.Millisecond

// A service is a process that is started again whenever it ends.
type service struct {
	name string
	path string
	args []string
	env  []string
	log  *os.File // what all its runs say

	gate sync.Mutex                           // held while the process must not be started; guards what follows
	arm  func() string                        // the crash places of the next run; nil: none
	died func(said string, by syscall.Signal) // is told how each run ended, and what it said

	tally *tally

	mu     sync.Mutex // guards what follows
	cmd    *exec.Cmd  // running; nil: none
	starts int
	gone   chan struct{} // closed when cmd has ended
}

func newService(name, dir, path string, args, env []string, t *tally) (*service, error) {
	log, err := os.OpenFile(dir+"/"+name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &service{name: name, path: path, args: args, env: env, log: log, tally: t}, nil
}

// command prepares a process of ours. It dies with us, and gets no signal from our terminal.
func command(path string, args, env []string, place string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = env
	if place != "" {
		cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], "WATERSHED_CRASH="+place)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// environment is ours without the settings of a Watershed, with more.
func environment(more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "WATERSHED_") {
			env = append(env, kv)
		}
	}
	return append(env, more...)
}

// arming says at which places the next runs die, and who is told how each ended; nil: none, nobody.
func (s *service) arming(arm func() string, died func(said string, by syscall.Signal)) {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.arm, s.died = arm, died
}

// run keeps the service up until ctx ends.
func (s *service) run(ctx context.Context) error {
	defer s.log.Close()
	for {
		s.gate.Lock()
		if ctx.Err() != nil {
			s.gate.Unlock()
			return nil
		}
		place := ""
		if s.arm != nil {
			place = s.arm()
		}
		cmd := command(s.path, s.args, s.env, place)
		cmd.Stdout, cmd.Stderr = s.log, s.log
		if err := cmd.Start(); err != nil {
			s.gate.Unlock()
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		gone, began := make(chan struct{}), s.said()
		s.mu.Lock()
		s.cmd, s.gone = cmd, gone
		s.starts++
		s.mu.Unlock()
		s.gate.Unlock()

		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it ended is in ProcessState
		stop()
		s.tally.spent(s.name, cmd.ProcessState)
		by := signalOf(cmd.ProcessState)
		fmt.Fprintf(s.log, "--- %s: pid %d ended: %s\n", time.Now().UTC().Format(time.RFC3339Nano), cmd.Process.Pid, cmd.ProcessState)
		s.mu.Lock()
		s.cmd = nil
		s.mu.Unlock()
		close(gone)
		s.gate.Lock()
		if s.died != nil {
			s.died(s.since(began), by)
		}
		s.gate.Unlock()
		if pause(ctx, restartAfter) != nil {
			return nil
		}
	}
}

func signalOf(state *os.ProcessState) syscall.Signal {
	if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return w.Signal()
	}
	return 0
}

// signal sends to the process that runs, if one does.
func (s *service) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return os.ErrProcessDone
	}
	return s.cmd.Process.Signal(sig)
}

// stop ends the process by a signal, waits until it is gone, and does something before the next start.
func (s *service) stop(sig syscall.Signal, then func() error) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.mu.Lock()
	cmd, gone := s.cmd, s.gone
	s.mu.Unlock()
	if cmd != nil {
		if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		<-gone
	}
	return then()
}

// said is the size of what the service has said so far, and since returns what came after.
func (s *service) said() int64 {
	st, err := s.log.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

func (s *service) since(offset int64) string {
	b, err := os.ReadFile(s.log.Name())
	if err != nil || int64(len(b)) < offset {
		return ""
	}
	return string(b[offset:])
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
