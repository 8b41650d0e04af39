package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An answer is what the endpoint said to one statement over all views.
type answer struct {
	at       time.Time // when it was there
	asked    time.Time
	build    uint64
	position uint64
	tables   map[string]table
}

// marks is the number of imports of each type in the answer's build.
func (a *answer) marks(views []viewSpec) map[string]int64 {
	marks := make(map[string]int64)
	for _, v := range views {
		if v.all {
			marks[v.eventType] = max(marks[v.eventType], a.sum(v.name).marks)
		}
	}
	return marks
}

func (a *answer) sum(view string) (sum row) {
	for _, r := range a.tables[view] {
		sum.n, sum.marks = sum.n+r.n, sum.marks+r.marks
	}
	return sum
}

// ask puts a statement to the endpoint. An error is no violation: the endpoint may be dead just now.
func ask(ctx context.Context, endpoint, sql string) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/v1/sql?format=csv", strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain")
	a := &answer{asked: time.Now(), tables: make(map[string]table)}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a.at = time.Now()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	if a.build, err = strconv.ParseUint(resp.Header.Get("Watershed-Build"), 10, 64); err != nil {
		return nil, fmt.Errorf("Watershed-Build: %w", err)
	}
	_, seq, _ := strings.Cut(resp.Header.Get("Watershed-Position"), ":")
	if a.position, err = strconv.ParseUint(seq, 10, 64); err != nil {
		return nil, fmt.Errorf("Watershed-Position: %w", err)
	}
	lines, err := csv.NewReader(strings.NewReader(string(body))).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, cells := range lines[1:] {
		var r row
		for i, to := range []*int64{&r.n, &r.marks, &r.total, &r.users} {
			if *to, err = strconv.ParseInt(cells[i+2], 10, 64); err != nil {
				return nil, err
			}
		}
		if a.tables[cells[0]] == nil {
			a.tables[cells[0]] = make(table)
		}
		a.tables[cells[0]][cells[1]] = r
	}
	return a, nil
}
