package devserver_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/internal/durable"
)

func stream(t *testing.T, n *devserver.NATS) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestMessagesSurviveARestart(t *testing.T) {
	for _, always := range []bool{false, true} {
		t.Run("SyncAlways "+strconv.FormatBool(always), func(t *testing.T) {
			cfg := devserver.NATSConfig{Dir: t.TempDir(), SyncAlways: always}
			first := devtest.StartNATS(t, cfg)
			js := stream(t, first)
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "log", Subjects: []string{"events.>"}, Storage: jetstream.FileStorage}); err != nil {
				t.Fatal(err)
			}
			const messages = 100
			for i := range messages {
				if _, err := js.Publish(t.Context(), "events.x", []byte(strconv.Itoa(i))); err != nil {
					t.Fatal(err)
				}
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if err := first.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}

			s, err := stream(t, devtest.StartNATS(t, cfg)).Stream(t.Context(), "log")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.CachedInfo().State.LastSeq; got != messages {
				t.Errorf("last sequence after a restart: got %d; want %d", got, messages)
			}
		})
	}
}

func TestNATSListensOnLoopbackAtThePortAskedFor(t *testing.T) {
	first := devtest.NATS(t)
	u, err := url.Parse(first.URL())
	if err != nil {
		t.Fatal(err)
	}
	if u.Hostname() != "127.0.0.1" {
		t.Errorf("host: got %s; want 127.0.0.1", u.Hostname())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	second := devtest.StartNATS(t, devserver.NATSConfig{Dir: t.TempDir(), Port: port})
	if second.URL() != first.URL() {
		t.Errorf("URL: got %s; want %s", second.URL(), first.URL())
	}
}

func TestNATSRefusesATakenPortAndATakenDirectory(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	n, err := devserver.StartNATS(t.Context(), devserver.NATSConfig{Dir: t.TempDir(), Port: listener.Addr().(*net.TCPAddr).Port})
	if err == nil {
		n.Close()
		t.Error("a taken port: got nil; want an error")
	}

	cfg := devserver.NATSConfig{Dir: t.TempDir()}
	devtest.StartNATS(t, cfg)
	n, err = devserver.StartNATS(t.Context(), cfg)
	var locked *durable.LockedError
	if !errors.As(err, &locked) {
		if err == nil {
			n.Close()
		}
		t.Fatalf("a taken directory: got %v; want a LockedError", err)
	}
	if locked.Holder.PID != os.Getpid() {
		t.Errorf("holder: got %d; want this process", locked.Holder.PID)
	}
}

// TestNATSLivesThroughAFullDisk fills the disk while messages are published, and makes room again: the same
// client goes on, and all that was acknowledged is there.
func TestNATSLivesThroughAFullDisk(t *testing.T) {
	dir, ok := devtest.SmallDisk(t, "64m")
	if !ok {
		return
	}
	cfg := devserver.NATSConfig{Dir: filepath.Join(dir, "nats"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	n := devtest.StartNATS(t, cfg)
	js := stream(t, n)
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "log", Subjects: []string{"events.>"}, Storage: jetstream.FileStorage})
	if err != nil {
		t.Fatal(err)
	}
	acked := make(map[uint64]string)
	publish := func(text string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ack, err := js.Publish(ctx, "events.x", []byte(text))
		if err == nil {
			acked[ack.Sequence] = text
		}
		return err
	}
	for range 2 {
		for i := range 10 {
			if err := publish(strings.Repeat(strconv.Itoa(i), 50<<10)); err != nil {
				t.Fatal(err)
			}
		}
		free := devtest.FillDisk(t, dir)
		for i := 0; ; i++ {
			if err := publish(strings.Repeat("x", 500<<10)); err != nil {
				break
			} else if i == 200 {
				t.Fatal("a full disk takes messages without end")
			}
		}
		if other, err := devserver.StartNATS(t.Context(), devserver.NATSConfig{Dir: filepath.Join(dir, "other")}); err == nil {
			other.Close()
			t.Error("started on a full disk; want an error that says so")
		}
		free()
		for end := time.Now().Add(time.Minute); publish("again") != nil; {
			if time.Now().After(end) {
				t.Fatal("the server does not take messages again")
			}
		}
	}
	for seq, text := range acked {
		msg, err := s.GetMsg(t.Context(), seq)
		if err != nil || string(msg.Data) != text {
			t.Errorf("message %d, which was acknowledged: got %v", seq, err)
		}
	}
}
