package devserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"watershed/internal/durable"
)

// ClickHouseConfig says where and how ClickHouse runs. Only Dir must be set.
type ClickHouseConfig struct {
	Dir     string // everything it keeps; made if it is missing
	LibPath string // the library; empty: see Library

	TCPPort  int // native protocol; 0: a free one
	HTTPPort int // 0: a free one

	AdminPassword  string // empty: drawn once per Dir, and kept there
	ReaderPassword string // likewise

	ReaderDatabase string // what the reader may SELECT from; a closing * means every such prefix; empty: "watershed"
	UserFiles      string // where the admin's file() and deltaLakeLocal() look; empty: user_files in Dir
	MaxMemory      int64  // bytes for the whole server; 0: ClickHouse's default, most of the machine

	Logger *slog.Logger // start and stop; nil: none
}

// ClickHouse is a running server. Its methods may be called from any goroutine.
type ClickHouse struct {
	dir       string
	tcp, http string // host:port
	passwords credentials
	logger    *slog.Logger

	process *os.Process
	stdin   io.Closer // the pipe whose end is the child's order to stop
	output  *tail
	lock    *durable.DirLock
	done    chan struct{} // closed when the child is gone and the directory is free

	mu      sync.Mutex // guards stopped and err
	stopped bool       // we meant it to stop
	err     error
}

// closeTimeout bounds an orderly stop; it took 0.1 s at rest, and waits for running merges.
const closeTimeout = 20 * time.Second

// StartClickHouse starts a server on a directory and returns when it answers. The context bounds the
// start alone: the server runs until Close, or until this process is gone. A directory on which
// another server runs is a *durable.LockedError, a missing library a *NotInstalledError.
func StartClickHouse(ctx context.Context, cfg ClickHouseConfig) (*ClickHouse, error) {
	if os.Getenv(childVariable) != "" {
		return nil, errors.New("start ClickHouse: this process is its child; main (or TestMain) must call devserver.Child first")
	}
	c, err := startClickHouse(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	c.logger.Info("ClickHouse is up", "native", c.tcp, "http", c.http, "pid", c.process.Pid, "dir", c.dir)
	return c, nil
}

func startClickHouse(ctx context.Context, cfg ClickHouseConfig) (*ClickHouse, error) {
	library, err := Library(cfg.LibPath)
	if err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	l := layout{cfg.Dir}
	if cfg.UserFiles == "" {
		cfg.UserFiles = l.userFiles()
	}
	if cfg.UserFiles, err = filepath.Abs(cfg.UserFiles); err != nil {
		return nil, err
	}
	if cfg.ReaderDatabase == "" {
		cfg.ReaderDatabase = "watershed"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{l.data(), cfg.UserFiles} {
		if err := durable.MkdirAll(dir); err != nil {
			return nil, err
		}
	}
	lock, err := lockAfterOrphan(ctx, cfg.Dir)
	if err != nil {
		return nil, err
	}
	passwords, err := loadCredentials(l.credentials(), credentials{cfg.AdminPassword, cfg.ReaderPassword})
	if err == nil {
		err = writeConfig(l, cfg, passwords)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return launchOnFreePorts(ctx, cfg, library, passwords, lock)
}

// lockAfterOrphan locks dir. A server whose parent died holds the lock until it has read the end of
// its input and stopped; that is waited for.
func lockAfterOrphan(ctx context.Context, dir string) (*durable.DirLock, error) {
	for {
		lock, err := durable.Lock(dir)
		var held *durable.LockedError
		if !errors.As(err, &held) || held.Holder.PID == 0 || syscall.Kill(held.Holder.PID, 0) != syscall.ESRCH {
			return lock, err
		}
		if err := pause(ctx); err != nil {
			return nil, fmt.Errorf("%w, whose server has not stopped yet: %w", held, err)
		}
	}
}

// launchOnFreePorts launches the child. ClickHouse does not tell which port it got for 0, so free ones
// are chosen here; should another process be quicker to take one, others are tried.
func launchOnFreePorts(ctx context.Context, cfg ClickHouseConfig, library string, passwords credentials, lock *durable.DirLock) (*ClickHouse, error) {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		tcpPort, httpPort, err := choosePorts(cfg.TCPPort, cfg.HTTPPort)
		if err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		c := &ClickHouse{
			dir:       cfg.Dir,
			tcp:       net.JoinHostPort(loopback, strconv.Itoa(tcpPort)),
			http:      net.JoinHostPort(loopback, strconv.Itoa(httpPort)),
			passwords: passwords,
			logger:    cfg.Logger,
			output:    &tail{},
			lock:      lock,
			done:      make(chan struct{}),
		}
		if err := c.launch(cfg.UserFiles, childArguments(library, layout{cfg.Dir}.config(), layout{cfg.Dir}.data(), tcpPort, httpPort)); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		err = c.waitReady(ctx)
		if err == nil {
			return c, nil
		}
		err = errors.Join(err, c.Close())
		lost := strings.Contains(c.output.String(), "Address already in use")
		if !lost || (cfg.TCPPort != 0 && cfg.HTTPPort != 0) || attempt == attempts {
			return nil, err
		}
		if lock, err = durable.Lock(cfg.Dir); err != nil { // the child's end gave it up
			return nil, err
		}
	}
}

// launch starts the child. It shares our lock on the directory, so that the lock is held for as long
// as either of us lives.
//
// It works in the directory of user files: below that one file() reads by its configuration, and
// deltaLakeLocal() in this library by its working directory alone.
func (c *ClickHouse) launch(files string, arguments []string) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(executable, arguments...)
	cmd.Dir = files
	cmd.Env = []string{childVariable + "=1", "TZ=UTC", "HOME=" + c.dir}
	cmd.ExtraFiles = []*os.File{c.lock.File()}
	cmd.Stdout, cmd.Stderr = c.output, c.output
	// A group of its own: an interrupt from the terminal reaches us alone, and we stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.process, c.stdin = cmd.Process, stdin
	go c.reap(cmd)
	return nil
}

// reap waits for the child's end and records it. It is joined through done.
func (c *ClickHouse) reap(cmd *exec.Cmd) {
	defer close(c.done)
	state := cmd.Wait()
	lockErr := c.lock.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped {
		c.err = fmt.Errorf("ClickHouse stopped by itself: %w; it said:\n%s", errors.Join(errEnded, state, lockErr), c.output)
	}
}

// errEnded is the cause that is there even when the child's exit status is 0.
var errEnded = errors.New("child process ended")

// Addr is the native protocol's host:port.
func (c *ClickHouse) Addr() string { return c.tcp }

// HTTPAddr is the HTTP interface's host:port.
func (c *ClickHouse) HTTPAddr() string { return c.http }

// Admin is the user who may do everything.
func (c *ClickHouse) Admin() (user, password string) { return adminUser, c.passwords.Admin }

// Reader is the user who may only read ClickHouseConfig.ReaderDatabase, within limits.
func (c *ClickHouse) Reader() (user, password string) { return readerUser, c.passwords.Reader }

// Dir is the absolute path of the server's directory.
func (c *ClickHouse) Dir() string { return c.dir }

// Pid is the server's process id.
func (c *ClickHouse) Pid() int { return c.process.Pid }

// Done is closed when the server is gone and its directory is free again.
func (c *ClickHouse) Done() <-chan struct{} { return c.done }

// Err says why the server stopped. It is nil while it runs, and after Close or Kill.
func (c *ClickHouse) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Kill ends the server as a crash would, with no chance to finish anything, and waits until it is gone.
func (c *ClickHouse) Kill() error {
	c.meanToStop()
	err := c.process.Kill()
	<-c.done
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill ClickHouse: %w", err)
	}
	return nil
}

// Close stops the server in order and waits until it is gone. One that takes more than 20 seconds is
// killed; what it had acknowledged is safe all the same. Closing twice does nothing.
func (c *ClickHouse) Close() error {
	c.meanToStop()
	// If we stop here, the operating system closes the pipe for us and the child ends by itself.
	if err := c.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return errors.Join(fmt.Errorf("close ClickHouse: %w", err), c.Kill())
	}
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		if err := c.Kill(); err != nil {
			return err
		}
		return fmt.Errorf("close ClickHouse: it had not stopped after %s and was killed", closeTimeout)
	}
	c.logger.Info("ClickHouse is down", "dir", c.dir)
	return nil
}

func (c *ClickHouse) meanToStop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}
