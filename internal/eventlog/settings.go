package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// duplicateWindow is NATS's default: it only helps publishers that retry. Both layers drop
	// duplicate events themselves, at any distance.
	duplicateWindow = 2 * time.Minute

	insufficientStorage jetstream.ErrorCode = 10047 // NATS's code for a stream that is larger than what is left of its disk

	deadShare = 8 // the dead-letter stream may take this fraction of the log's bytes
)

func streamConfig(cfg Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        cfg.Stream,
		Description: "Watershed: events and cuts",
		Subjects:    []string{eventSubject + ">", cutSubject},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    cfg.Replicas,
		MaxBytes:    cfg.MaxBytes,
		Discard:     jetstream.DiscardNew, // a full log refuses, it never forgets
		DenyDelete:  true,
		AllowDirect: true,
		Duplicates:  duplicateWindow,
	}
}

func deadConfig(cfg Config) jetstream.StreamConfig {
	c := streamConfig(cfg)
	c.Name = cfg.Stream + "_DLQ"
	c.Description = "Watershed: what does not fit its schema"
	c.Subjects = []string{deadSubject + ">"}
	c.DenyDelete = false // they are replayed and dropped
	c.MaxBytes = max(cfg.MaxBytes/deadShare, 1<<20)
	return c
}

// ensure creates the stream, or checks the one that is there.
func (l *Log) ensure(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	s, err := l.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// Two processes that create it at once ask for the same, which NATS takes for one; if they
		// differ, the second is refused and finds the first one's in the next lines.
		if s, err = l.js.CreateStream(ctx, want); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			s, err = l.js.Stream(ctx, want.Name)
		}
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == insufficientStorage {
		err = fmt.Errorf("NATS keeps %d bytes of its disk for it, and has not so much room: make some, or lower the log's limit: %w", want.MaxBytes, err)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", want.Name, err)
	}
	if wrong := mismatches(s.CachedInfo().Config, want); len(wrong) > 0 {
		return nil, fmt.Errorf("stream %s has settings that could lose events or positions:\n\t%s", want.Name, strings.Join(wrong, "\n\t"))
	}
	return s, nil
}

// mismatches names each setting of a stream that must be another one, and how to change it.
func mismatches(got, want jetstream.StreamConfig) []string {
	var wrong []string
	check := func(bad bool, what string, a ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(what, a...))
		}
	}
	edit := "heal: nats stream edit " + got.Name
	// What a stream was created with and cannot change. Events are saved by reading them over.
	recreate := "cannot be changed: back the stream up (nats stream backup), recreate it with the setting corrected and a" +
		" first sequence above the last one, and rebuild from history"

	slices.Sort(got.Subjects)
	slices.Sort(want.Subjects)
	check(!slices.Equal(got.Subjects, want.Subjects) && !isAside(got.Subjects), "subjects are %s, must be %s; %s --subjects=%s",
		strings.Join(got.Subjects, ","), strings.Join(want.Subjects, ","), edit, strings.Join(want.Subjects, ","))
	check(got.Retention != want.Retention, "retention is %s, must be limits; %s", got.Retention, recreate)
	check(got.Storage != want.Storage, "storage is %s, must be file; %s", got.Storage, recreate)
	check(got.Discard != want.Discard, "discard is %s, must be new, so that a full stream refuses instead of forgetting; %s --discard=new",
		got.Discard, edit)
	check(got.MaxBytes <= 0, "max_bytes is unlimited, must be explicit, so that a full disk is not the limit; %s --max-bytes=%d", edit, want.MaxBytes)
	check(got.MaxAge != 0, "max_age is %s, must be unlimited; %s --max-age=0", got.MaxAge, edit)
	check(got.MaxMsgs > 0, "max_msgs is %d, must be unlimited; %s --max-msgs=-1", got.MaxMsgs, edit)
	check(got.MaxMsgsPerSubject > 0, "max_msgs_per_subject is %d, must be unlimited; %s --max-msgs-per-subject=-1", got.MaxMsgsPerSubject, edit)
	check(want.DenyDelete && !got.DenyDelete, "deny_delete is off, must be on; %s --deny-delete", edit)
	check(got.AllowRollup, "allow_rollup_hdrs is on, must be off; %s --no-allow-rollup", edit)
	check(got.AllowMsgTTL, "allow_msg_ttl is on, must be off, because messages would expire; %s", recreate)
	check(!got.AllowDirect, "allow_direct is off, must be on; %s --allow-direct", edit)
	check(got.NoAck, "no_ack is on, must be off; %s --ack", edit)
	check(got.Sealed, "the stream is sealed; %s", recreate)
	check(got.Mirror != nil || len(got.Sources) > 0, "the stream is filled by a mirror or sources, whose sequences are not its own; %s", recreate)
	check(got.SubjectTransform != nil, "subjects are transformed on their way in; %s --no-transform", edit)
	return wrong
}
