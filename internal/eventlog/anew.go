package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/crash"
	"watershed/schemas"
)

// AnewRequest says what a log that is begun anew must stay clear of.
type AnewRequest struct {
	Above    uint64           // the highest sequence of a position of this log that is stored anywhere
	CutAbove uint64           // the highest number of a cut of this log that is known anywhere
	Kept     schemas.Position // messages up to here are in history; zero: nothing is known to be

	// Definitions hold from the beginning on. If an interrupted call has emptied the log and its last cut is
	// as new as CutAbove, that cut's do: nobody else knows them.
	Definitions schemas.Set
	Retiring    schemas.Set
}

// AnewResult says how a log was begun anew.
type AnewResult struct {
	Cut         schemas.Cut // that the log begins with
	Republished int         // messages of the log before, published again behind it

	// Resumed means that this call finished what an earlier one had begun and did nothing else.
	// Positions that were stored since may still not hold; then Anew is called once more.
	Resumed bool
}

const (
	anewCounter  = "anew" // sequences that logs were begun anew behind
	anewAttempts = 10     // at what others come between
	undoTimeout  = 10 * time.Second
)

var (
	eventSubjects = []string{eventSubject + ">", cutSubject}
	asideSubjects = []string{markSubject}
	cutSubjects   = []string{cutSubject, markSubject}

	errInterfered = errors.New("someone else has changed the log while it was begun anew")
)

// Anew heals a log that is not the one that positions were taken from: it was truncated,
// recreated, or restored from an older copy. The log goes on behind every position known, with a
// cut that says so (schemas.Cut.Anew): readers accept it from any position up to there. What the
// log had behind Kept is published again behind the cut; if Kept does not hold in the log, all
// that it had. Events that are published twice by this are one event by their identity.
//
// Publishers get ErrUnreachable while it lasts, and lose nothing that was acknowledged to them.
// Whatever it dies of, calling it again goes on; AnewPending says whether that is to be done.
func (l *Log) Anew(ctx context.Context, req AnewRequest) (AnewResult, error) {
	for range anewAttempts {
		result, err := l.anew(ctx, req)
		if errors.Is(err, errInterfered) {
			continue
		}
		if err != nil {
			return AnewResult{}, fmt.Errorf("begin log %s anew: %w", l.cfg.Stream, classify(err))
		}
		return result, nil
	}
	return AnewResult{}, fmt.Errorf("begin log %s anew: %w; stop other repairs and what publishes cuts, and try again", l.cfg.Stream, errInterfered)
}

// AnewPending reports that Anew has begun and not ended: events are refused, or some are still to
// be published again.
func (l *Log) AnewPending(ctx context.Context) (bool, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("log %s: %w", l.cfg.Stream, classify(err))
	}
	if isAside(info.Config.Subjects) {
		return true, nil
	}
	s, err := l.js.Stream(ctx, l.rescueName())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stream %s: %w", l.rescueName(), classify(err))
	}
	// Without a cut it is what is left of an attempt that was taken back.
	return s.CachedInfo().Config.Metadata[rescueCut] != "", nil
}

func (l *Log) anew(ctx context.Context, req AnewRequest) (AnewResult, error) {
	if _, err := l.ensure(ctx, streamConfig(l.cfg)); err != nil {
		return AnewResult{}, err
	}
	rescue, err := l.openRescue(ctx)
	if err != nil {
		return AnewResult{}, err
	}
	first, ok, err := l.OldestCut(ctx)
	if err != nil {
		return AnewResult{}, err
	}
	if ok && first.Anew > 0 && rescue.isFor(first.Number) {
		return l.finish(ctx, rescue, first, true)
	}
	cut, err := l.begin(ctx, rescue, req)
	if err != nil {
		return AnewResult{}, err
	}
	return l.finish(ctx, rescue, cut, false)
}

// begin takes the log to where its new first cut is the only message.
func (l *Log) begin(ctx context.Context, rescue *rescue, req AnewRequest) (schemas.Cut, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return schemas.Cut{}, err
	}
	// 1. Nothing is taken any more. If we stop here, publishers are refused until Anew is called again.
	if err := l.setSubjects(ctx, asideSubjects); err != nil {
		return schemas.Cut{}, err
	}
	crash.At("eventlog.anew-aside")
	l.step("aside")
	mark, err := l.save(ctx, rescue, req.Kept)
	if err != nil && isAside(info.Config.Subjects) {
		return schemas.Cut{}, err
	}
	if err != nil {
		// The log is as it was, so it may go on; what was copied stays for the next attempt.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return schemas.Cut{}, errors.Join(err, l.setSubjects(undo, eventSubjects))
	}
	// 4. Behind which position the log goes on. If we stop here, the number is used up.
	behind, err := l.Next(ctx, anewCounter, max(req.Above, mark))
	if err != nil {
		return schemas.Cut{}, err
	}
	last, ok, err := l.LastCut(ctx)
	if err != nil {
		return schemas.Cut{}, err
	}
	if !ok { // the log was lost, or an earlier call has emptied it
		if last, ok, err = rescue.savedCut(ctx); err != nil {
			return schemas.Cut{}, err
		}
		if ok && last.Number >= req.CutAbove {
			req.Definitions, req.Retiring = last.Definitions, last.Retiring
		}
	}
	known, err := l.raise(ctx, cutCounter, max(req.CutAbove, last.Number))
	if err != nil {
		return schemas.Cut{}, err
	}
	cut := schemas.Cut{Number: known + 1, Definitions: req.Definitions, Retiring: req.Retiring, Anew: behind,
		Past: l.cfg.Past, Future: l.cfg.Future}
	// 5. The log is emptied. If we stop here, all that it had is in history or rescued.
	if err := l.empty(ctx, mark, behind); err != nil {
		return schemas.Cut{}, err
	}
	crash.At("eventlog.anew-emptied")
	l.step("emptied")
	return cut, l.publishAnew(ctx, rescue, &cut)
}

// save copies what the log has behind kept, and returns the sequence that it ends with.
func (l *Log) save(ctx context.Context, rescue *rescue, kept schemas.Position) (mark uint64, err error) {
	// 2. What was on its way when the subjects were taken is in the log before this message, or
	// was refused. If we stop here, the log has a message that readers pass by.
	ack, err := l.js.Publish(ctx, markSubject, nil, jetstream.WithExpectStream(l.cfg.Stream))
	if err != nil {
		return 0, err
	}
	crash.At("eventlog.anew-marked")
	l.step("marked")
	// 3. A second copy of what is not in history, and of the last cut. If we stop here, a part of it is
	// there, without gaps; the next call goes on behind that.
	if err := rescue.saveCut(ctx); err != nil {
		return 0, err
	}
	if err := rescue.copy(ctx, kept, ack.Sequence); err != nil {
		return 0, err
	}
	crash.At("eventlog.anew-copied")
	l.step("copied")
	return ack.Sequence, nil
}

// empty removes all messages up to the mark, so that the next one comes behind the given
// sequence. The first purge cannot touch what another process may have put behind the mark, and
// the second is sent only if there is nothing.
func (l *Log) empty(ctx context.Context, mark, behind uint64) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return err
	}
	if info.State.LastSeq != mark || !isAside(info.Config.Subjects) {
		return errInterfered
	}
	if info.Config.DenyPurge {
		return l.recreate(ctx, info.Config, behind)
	}
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(mark+1)); err != nil {
		return err
	}
	if info, err = l.stream.Info(ctx); err != nil {
		return err
	}
	if info.State.Msgs > 0 || info.State.LastSeq != mark || !isAside(info.Config.Subjects) {
		return errInterfered
	}
	return l.stream.Purge(ctx, jetstream.WithPurgeSequence(behind+1))
}

// recreate empties a stream that must not be purged. If we stop in the middle there is no stream
// until one is created at sequence 1, by this or another process; Anew begins with that then.
func (l *Log) recreate(ctx context.Context, cfg jetstream.StreamConfig, behind uint64) error {
	cfg.DenyPurge, cfg.FirstSeq = false, behind+1
	if err := l.js.DeleteStream(ctx, cfg.Name); err != nil {
		return err
	}
	_, err := l.js.CreateStream(ctx, cfg)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return errInterfered
	}
	return err
}

// publishAnew makes the cut the log's first message.
func (l *Log) publishAnew(ctx context.Context, rescue *rescue, cut *schemas.Cut) error {
	// 6. Which cut the rescued messages belong behind. If we stop here, the log is still empty, and
	// the next call empties it once more.
	if err := rescue.setCut(ctx, cut.Number); err != nil {
		return err
	}
	if err := l.setSubjects(ctx, cutSubjects); err != nil {
		return err
	}
	msg, err := encodeCut(cut)
	if err != nil {
		return err
	}
	// 7. The cut. If we stop behind this line, the next call finds the cut and finishes.
	ack, err := l.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequence(cut.Anew), jetstream.WithExpectStream(l.cfg.Stream))
	if isWrongLast(err) {
		return errInterfered // a process that found an empty log has published the first cut
	}
	if err != nil {
		return err
	}
	crash.At("eventlog.anew-cut")
	l.step("cut")
	cut.Position, cut.At, err = l.At(ctx, ack.Sequence)
	return err
}

// finish opens a log that begins with its new cut, and publishes what was rescued.
func (l *Log) finish(ctx context.Context, rescue *rescue, cut schemas.Cut, resumed bool) (AnewResult, error) {
	if _, err := l.raise(ctx, cutCounter, cut.Number); err != nil {
		return AnewResult{}, err
	}
	// 8. Events are taken again. If we stop here, the rescued ones are missing until the next call.
	if err := l.setSubjects(ctx, eventSubjects); err != nil {
		return AnewResult{}, err
	}
	crash.At("eventlog.anew-open")
	l.step("open")
	// 9. If we stop in the middle, the next call publishes all of them again.
	n, err := rescue.republish(ctx, cut.Number)
	if err != nil {
		return AnewResult{}, err
	}
	crash.At("eventlog.anew-republished")
	l.step("republished")
	// 10. If we stop before, the next call publishes them again.
	if err := l.js.DeleteStream(ctx, l.rescueName()); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return AnewResult{}, err
	}
	crash.At("eventlog.anew-done")
	l.step("done")
	return AnewResult{Cut: cut, Republished: n, Resumed: resumed}, nil
}

// setSubjects changes what the log takes, and nothing else of its settings.
func (l *Log) setSubjects(ctx context.Context, subjects []string) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return err
	}
	cfg := info.Config
	if slices.Equal(slices.Sorted(slices.Values(cfg.Subjects)), slices.Sorted(slices.Values(subjects))) {
		return nil
	}
	cfg.Subjects = subjects
	_, err = l.js.UpdateStream(ctx, cfg)
	return err
}

// isAside reports that a stream's subjects are those of a log that is being begun anew: it takes
// no events.
func isAside(subjects []string) bool {
	return slices.Contains(subjects, markSubject)
}
