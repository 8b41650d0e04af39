// Package durability measures what it costs that acknowledged things survive a power cut. It has no other
// code: docs/DURABILITY.md says how to run it, and has its figures.
package durability

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/internal/durable"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
	"watershed/serving/store"
)

func TestMain(m *testing.M) { devtest.Main(m) }

const definitions = `
event: visit
id: id
time: time
fields:
  id: int64
  time: timestamp
  site: int64
---
view: sites
from: visit
dimensions:
  site: site
measures:
  visits: count()
  ids: uniq(id)
`

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// atOnce is how many messages are under way until the last of them is acknowledged.
const atOnce = 1000

// BenchmarkLog publishes messages of one event: one after another, each waiting for its acknowledgement,
// and a thousand at once. sync=always is sync_interval: always; the other is what
// NATS does by default. A counter is a number of the log's, such as a term.
func BenchmarkLog(b *testing.B) {
	for _, always := range []bool{true, false} {
		name := map[bool]string{true: "sync=always", false: "sync=2m"}[always]
		open := func(b *testing.B) *eventlog.Log {
			server, err := devserver.StartNATS(b.Context(), devserver.NATSConfig{Dir: b.TempDir(), SyncAlways: always})
			check(b, err)
			b.Cleanup(func() { check(b, server.Close()) })
			log, err := eventlog.Open(b.Context(), eventlog.Config{URL: server.URL(), MaxBytes: 1 << 30})
			check(b, err)
			b.Cleanup(log.Close)
			return log
		}
		payload := []byte(`{"id":1,"time":"2025-01-01T00:00:00Z","site":2}`)
		b.Run("one/"+name, func(b *testing.B) {
			log := open(b)
			for b.Loop() {
				_, err := log.Publish(b.Context(), "visit", payload, "")
				check(b, err)
			}
		})
		b.Run("many/"+name, func(b *testing.B) {
			p, err := open(b).NewPublisher(eventlog.PublisherOptions{})
			check(b, err)
			defer p.Close()
			for b.Loop() {
				for range atOnce {
					check(b, p.Publish(b.Context(), "visit", payload, ""))
				}
				_, err = p.Flush(b.Context())
				check(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*atOnce), "ns/message")
		})
		b.Run("counter/"+name, func(b *testing.B) {
			log := open(b)
			for b.Loop() {
				_, err := log.Next(b.Context(), "cost", 0)
				check(b, err)
			}
		})
	}
}

// plan is the view's plan and the states of so many groups.
func plan(b *testing.B, groups int) (*view.Plan, arrow.Record) {
	set, err := schemas.Load(fstest.MapFS{"cost.yaml": {Data: []byte(definitions)}})
	check(b, err)
	plans, err := view.CompileSet(set)
	check(b, err)
	build := array.NewRecordBuilder(memory.DefaultAllocator, set.Events[0].ArrowSchema())
	for i := range groups {
		build.Field(0).(*array.Int64Builder).Append(int64(i))
		build.Field(1).(*array.TimestampBuilder).Append(0)
		build.Field(2).(*array.Int64Builder).Append(int64(i))
		build.Field(3).(*array.Int64Builder).Append(1)
		build.Field(4).(*array.Int32Builder).Append(int32(i))
	}
	fold := plans[0].NewFold()
	check(b, fold.Add(column.NewReader().Block(build.NewRecord()), nil))
	return plans[0], fold.Flush()
}

// BenchmarkStore writes what the speed layer writes at a flush, of a hundred groups, and what it writes
// when no states are due: the positions alone.
func BenchmarkStore(b *testing.B) {
	p, states := plan(b, 100)
	for _, fsync := range []bool{true, false} {
		name := fmt.Sprintf("fsync=%t", fsync)
		open := func(b *testing.B) *store.DB {
			server := devtest.SharedClickHouse(b)
			user, password := server.Admin()
			database := "cost_" + strings.Map(func(r rune) rune {
				if r == '/' || r == '=' {
					return '_'
				}
				return r
			}, b.Name()) + fmt.Sprint(time.Now().UnixNano())
			db, err := store.Open(b.Context(), store.Config{Addr: server.Addr(), Database: database, User: user, Password: password, NoFsync: !fsync})
			check(b, err)
			b.Cleanup(func() { check(b, db.Close()) })
			check(b, db.EnsurePlans(b.Context(), []*view.Plan{p}, true))
			return db
		}
		b.Run("flush/"+name, func(b *testing.B) {
			db, seq := open(b), uint64(0)
			for b.Loop() {
				seq++
				check(b, db.InsertSpeed(b.Context(), p, 1, schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: seq}}, states))
			}
		})
		b.Run("positions/"+name, func(b *testing.B) {
			db, seq := open(b), uint64(0)
			for b.Loop() {
				seq++
				check(b, db.SavePositions(b.Context(), 1, map[string]schemas.Mark{p.Hash: {Epoch: 1, Position: schemas.Position{Seq: seq}}}))
			}
		})
	}
}

// BenchmarkHistory puts files of the size of a small commit (1 KiB) and of a data file (1 MiB): as history
// does, durably and under a name that is not taken, and as a plain write would.
func BenchmarkHistory(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		data := make([]byte, size)
		for name, put := range map[string]func(path string) error{
			"fsync=true":  func(path string) error { return durable.PutIfAbsent(path, data) },
			"fsync=false": func(path string) error { return os.WriteFile(path, data, 0o600) },
		} {
			b.Run(fmt.Sprintf("KiB=%d/%s", size>>10, name), func(b *testing.B) {
				dir, n := b.TempDir(), uint64(0)
				for b.Loop() {
					n++
					binary.LittleEndian.PutUint64(data, n)
					check(b, put(filepath.Join(dir, fmt.Sprint(n))))
				}
			})
		}
	}
}
