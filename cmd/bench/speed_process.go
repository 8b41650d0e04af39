package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/devserver"
	"watershed/internal/eventlog"
	"watershed/serving/store"
	"watershed/speed"
)

// What a process that stays does; see task.Stay.
const (
	stayNATS   = "nats"
	stayWorker = "worker"
	stayReader = "reader" // the bare consumer
)

// A process is a child of ours that works until it is closed, so that its costs are its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	once  sync.Once
}

// startProcess starts a task that stays, and waits until it says that it is ready.
func startProcess(ctx context.Context, t task) (_ *process, ready string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, childCommand)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for us, who ends it in order
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, "", err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	p.out = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, "", err
	}
	err = json.NewEncoder(p.stdin).Encode(t)
	if err == nil {
		err = p.say(&ready)
	}
	if err != nil {
		return nil, "", fmt.Errorf("start the %s: %w", t.Stay, errors.Join(err, p.close(nil)))
	}
	return p, ready, nil
}

// say reads the next line that the process writes.
func (p *process) say(into any) error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, into)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// begin lets a process that is ready do what it is there for.
func (p *process) begin() error {
	_, err := io.WriteString(p.stdin, "\n")
	return err
}

// close ends the process, and reads what it says last, if anybody wants to know.
func (p *process) close(last any) (err error) {
	p.once.Do(func() {
		err = p.stdin.Close()
		if last != nil {
			err = errors.Join(err, p.say(last))
		}
		_, drained := io.Copy(io.Discard, p.out)
		err = errors.Join(err, drained, p.cmd.Wait())
	})
	return err
}

// stay is a child that works until its standard input ends.
func stay(ctx context.Context, t task, stdin io.Reader, stdout io.Writer) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	began := make(chan struct{})
	go func() { // ends with the process
		defer end()
		one := make([]byte, 1)
		for first := true; ; first = false {
			if n, err := stdin.Read(one); n == 0 || err != nil {
				return
			}
			if first {
				close(began)
			}
		}
	}()
	say := json.NewEncoder(stdout)
	switch t.Stay {
	case stayNATS:
		n, err := devserver.StartNATS(ctx, devserver.NATSConfig{Dir: t.Dir, SyncAlways: t.Fsync})
		if err != nil {
			return err
		}
		<-join(ctx, say.Encode(n.URL()))
		return n.Close()
	case stayWorker:
		return stayFolding(ctx, t, began, say)
	case stayReader:
		return stayReading(ctx, t, began, say)
	}
	return fmt.Errorf("there is no task %q", t.Stay)
}

// join is a channel that is closed when ctx ends, or at once if there is an error.
func join(ctx context.Context, err error) <-chan struct{} {
	if err == nil {
		return ctx.Done()
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// workerMemory is what `watershed speed` prefers, and workerGrowth when it collects below that.
const (
	workerMemory = 208 << 20
	workerGrowth = 300
)

// stayFolding is the speed worker as `watershed speed` runs it, by itself.
func stayFolding(ctx context.Context, t task, began <-chan struct{}, say *json.Encoder) (err error) {
	debug.SetMemoryLimit(workerMemory)
	debug.SetGCPercent(workerGrowth)
	log, err := eventlog.Open(ctx, eventlog.Config{URL: t.NATS})
	if err != nil {
		return err
	}
	defer log.Close()
	db, err := store.Open(ctx, store.Config{Addr: t.ClickHouse, Database: t.Database, User: t.User, Password: t.Password, NoFsync: !t.Fsync})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := say.Encode("ready"); err != nil {
		return err
	}
	select {
	case <-began:
	case <-ctx.Done():
		return nil
	}
	w := speed.New(speedLog{log}, db, speed.Config{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Flushed: func(speed.Flush) { log.Stored() }, // a hint, as `watershed speed` gives it
	})
	if err := w.Run(ctx); err != nil {
		return err
	}
	return say.Encode(w.Stats())
}

// stayReading reads the log with the client library's own ordered consumer, and does nothing else. It says how
// many seconds it took to t.Until.
func stayReading(ctx context.Context, t task, began <-chan struct{}, say *json.Encoder) error {
	conn, err := nats.Connect(t.NATS)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	if err := say.Encode("ready"); err != nil {
		return err
	}
	select {
	case <-began:
	case <-ctx.Done():
		return nil
	}
	at := time.Now()
	consumer, err := js.OrderedConsumer(ctx, "WATERSHED", jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	n := uint64(0)
	reading, err := consumer.Consume(func(msg jetstream.Msg) {
		if n++; n == t.Until {
			meta, err := msg.Metadata()
			if err == nil && meta.Sequence.Stream != t.Until {
				err = fmt.Errorf("message %d of the log is the consumer's message %d", meta.Sequence.Stream, n)
			}
			done <- err
		}
	}, jetstream.PullMaxMessages(10_000))
	if err != nil {
		return err
	}
	defer reading.Stop()
	select {
	case err := <-done:
		return errors.Join(err, say.Encode(time.Since(at).Seconds()))
	case <-ctx.Done():
		return ctx.Err()
	}
}
