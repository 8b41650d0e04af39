package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"
)

// An event is one of either type. Its id is given out once.
type event struct {
	Type  string `json:"-"`
	ID    string `json:"id"`
	Time  string `json:"time"`
	Name  string `json:"name"`
	User  int64  `json:"user"`
	Value int64  `json:"value"`
	Kind  string `json:"kind"`
	time  time.Time
	acked time.Time // when its first message was acknowledged
}

// userLimit is the number of users.
const userLimit = 100

// A generator draws events of one type.
type generator struct {
	r         *rand.Rand
	eventType string
	today     time.Time
	next      int
}

func newGenerator(seed uint64, eventType string) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, uint64(len(eventType)))), eventType: eventType, today: time.Now().UTC().Truncate(24 * time.Hour)}
}

// draw is a new event: most are of today, some are late by a day or five.
func (g *generator) draw(source, kind string) *event {
	g.next++
	day := g.today
	switch g.r.IntN(8) {
	case 0:
		day = day.AddDate(0, 0, -1)
	case 1:
		day = day.AddDate(0, 0, -5)
	}
	at := day.Add(time.Duration(g.r.Int64N(int64(24 * time.Hour)))).Truncate(time.Microsecond)
	e := &event{
		Type: g.eventType, ID: fmt.Sprintf("%s-%s-%d", g.eventType, source, g.next), Time: at.Format(time.RFC3339Nano),
		Name: fmt.Sprintf("n%d", g.r.IntN(8)), User: g.r.Int64N(userLimit), Value: g.r.Int64N(1000), Kind: kind, time: at,
	}
	if kind == markKind {
		e.Value = 999 // every view shows it
	}
	return e
}

// markKind is the kind of the events that every import brings one of, and that are never published.
const markKind = "mark"

// line is the event as a message holds it.
func (e *event) line() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and integers alone
	}
	return append(b, '\n')
}
