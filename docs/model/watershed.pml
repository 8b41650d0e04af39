/*
 * Watershed's cut / flush / flip / takeover protocol, for Spin 6.5.
 *
 * Every alternative of a process is one atomic step, and names the code that it models. A
 * process may stop between any two of them: for good (crash), or for as long as it likes (a
 * paused process is one that is not scheduled). README.md says what is left out, run.sh runs
 * every configuration.
 *
 * One view, one log, one date. A position is an index into the log; a set of events is a bit
 * mask over positions; a table of states is two masks: counted once or more, counted more than once.
 */

/* ---- bounds ---------------------------------------------------------------------------- */
#ifndef EVENTS
#define EVENTS 3     /* events; the second is one that the view's filter drops */
#endif
#ifndef WORKERS
#define WORKERS 2    /* speed workers */
#endif
#ifndef SESSIONS
#define SESSIONS 3   /* terms of the speed role: starts, restarts and takeovers in all */
#endif
#ifndef BATCHES
#define BATCHES 2    /* batch processes */
#endif
#ifndef RUNS
#define RUNS 2       /* terms of the batch role: runs and rollbacks in all */
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 1  /* how many of RUNS may be rollbacks (or releases of one) */
#endif
#ifndef KEEP
#define KEEP 0       /* older builds that garbage keeps; keepBuilds is 3 */
#endif
#ifndef TRIMS
#define TRIMS 0      /* how often the log is trimmed */
#endif
#ifndef HELD
#define HELD 0       /* how many builds may hold the plan over, because its archive is late */
#endif
#ifdef ANEW
#define ANEWS 1      /* the log is begun anew once */
#else
#define ANEWS 0
#endif
#define SLOTS  3     /* speed inserts under way at a time, orphans included */
#define BSLOTS 2     /* likewise of batches */

#define CUTS (2+RUNS+ANEWS)      /* cut numbers from 0, which is the beginning of the log */
#define LOG  (1+EVENTS+RUNS+ANEWS*(1+EVENTS))     /* positions 1..LOG, at most 8 */

/* ---- the log (internal/eventlog) ------------------------------------------------------- */
byte end = 1;           /* last position; position 1 is cut 1, published by `up` */
byte published;         /* events published */
byte ev;                /* positions that hold an event which the view counts */
byte epochAt[LOG+1];    /* epoch in force behind a position: it differs from the one before at a cut */
byte lastCut = 1;       /* Log.LastCut */
byte cutPos[CUTS];      /* Log.Cut: position of a cut */
byte first = 1;         /* first position that is there: 1, or a cut's; end+1: none is */
#define INLOG(p) (first == 1 || (p) >= first)   /* one can read on behind p (else *TrimmedError) */
#if TRIMS
byte trims;
#endif
#ifdef ANEW
byte anewAt;            /* position of the cut with which the log was begun anew */
byte copyOf[LOG+1];     /* the position at which a rescued event was before */
bool away;              /* the stream's subjects are taken away: publishers are refused */
byte repair;            /* how far Log.Anew has come: all of it is seen in the log and the rescue stream */
byte rescue;            /* the rescue stream: positions that are to be published again */
byte keptUpTo;          /* AnewRequest.Kept */
byte late;              /* positions archived behind that, which so come twice: see merge */
#define OPEN (!away)
#else
#define OPEN true
#endif
byte kvSpeed, kvBatch, kvFlip;  /* Log.Next("term.speed"), ("term.batch"), ("flip") */

/* ---- history (batch/history) ----------------------------------------------------------- */
byte archived;          /* txn of the table: the position up to which it holds the log */
#ifdef ANEW
byte skipped;           /* positions of the log before that history will never hold */
#define SKIPPED skipped
#else
#define SKIPPED 0
#endif
#ifdef BUG_ARCHIVER_STRADDLES
byte snapshot[CUTS];    /* what the first version at or past cut n holds */
#endif

/* ---- ClickHouse (serving/store) -------------------------------------------------------- */
byte termSpeed, termBatch;             /* terms: newest of each role */
byte once[CUTS], twice[CUTS];          /* speed table, by epoch */
byte reach[CUTS];                      /* its _pos, by epoch */
byte position;                         /* positions */
byte begun;                            /* begins: speed states are complete from this epoch on */
bool raced;                            /* begun rose while a rollback to an older cut was under way */
byte rows1[RUNS+1], rows2[RUNS+1];     /* batch table, by slice id: one slice a run, its id is the term */
byte key[RUNS+1];                      /* slices: the key, which is what went into the slice */
byte registered, condemned;            /* slices, condemned: sets of ids */
byte builds = 1;                       /* builds: set of numbers; 0 is the empty build */
byte sliceOf[CUTS];                    /* builds: the slice of a build, 0 if history was empty */
byte atCut[CUTS];                      /* builds: the cut at which the plan's slices stand: its own, or an older one */
#if HELD
byte heldOver;
#endif
byte shown = 1;                        /* live: builds that it has ever named */
byte condemnedBuilds;                  /* condemned: builds that may not be flipped to */
byte flip, live;                       /* live: highest flip, and its build (= its cut) */
bool pinned;

/* ---- inserts under way ----------------------------------------------------------------- */
/* An insert is SENT (on its way, for as long as it likes), then PASSED (it has gone by its
 * fence and is in system.processes), then in, or killed. HALF: some of a slice's rows are in.
 * own is 1 + the process that waits for it; 0: its writer is dead, or has given it up. */
#define FREE 0
#define SENT 1
#define PASSED 2
#define HALF 3
typedef Insert { unsigned st : 2, kind : 3, term : 3, ep : 3, own : 2; byte a, b };
Insert sp[SLOTS];
Insert bt[BSLOTS];
#define STATES   1  /* sp: flush; a: the position before it, b: the position that it reaches */
#define POSITION 2  /* sp: SavePositions at b */
#define BEGIN    3  /* sp: Begin at b, the position of the cut ep; SavePositions follows */
#define CUT      1  /* bt: a: the last cut's number, as expected */
#define ROWS     2  /* bt: InsertSlices; a: id, b: states */
#define REGISTER 3  /* bt: RegisterSlices; a: id, b: key */
#define BUILD    4  /* bt: SaveBuild; a: number, b: slice, ep: the cut at which it stands */
#define FLIP     5  /* bt: a: build, b: flip number, ep: pinned */
#define CONDEMN  6  /* bt: a: slices, b: builds */

/* ---- processes ------------------------------------------------------------------------- */
#define IDLE 0
#define TERM 1      /* has a number, not yet recorded */
#define ENDING 2    /* recorded; older inserts are being ended */
/* speed */
#define FOLDING 3
#define FLUSHING 4
typedef Speed { unsigned pc : 3, term : 3, mark : 4 };   /* mark: what stands at or below it is in ClickHouse */
Speed w[WORKERS];
/* batch */
#define PUBLISHING 3
#define AWAITING 4
#define SLICING 5
#define INSERTING 6
#define COUNTING 7
#define REGISTERING 8
#define SAVING 9
#define SAVED 10
#define FLIPPING 11
#define FLIPPED 12
#define GARBAGE 13
#define DROPPING 14
#define CONDEMNING 15
#define CONDEMNED 16
#define FORGETTING 17
typedef Batch { unsigned pc : 5, term : 3, n : 3, id : 3, at : 3, oldest : 3, pin : 1, back : 1; byte old, gone };
Batch b[BATCHES];
byte rollbacks;
#ifdef READER
byte flips;         /* how often live has changed */
#endif
byte seen;          /* the furthest position that a reader has seen the view at */
bool calm;          /* PROGRESS: faults are over */

/* Where the plan's slices stand in a build. */
#ifdef BUG_VIEW_TAKES_THE_BUILDS_CUT
#define CUTOF(bld) (bld)
#else
#define CUTOF(bld) atCut[bld]
#endif

/* Not invariants: states that the model must be able to reach. */
#ifdef GOAL_SLICE_USED_AGAIN
#define GOAL (live==3 && sliceOf[3] && sliceOf[3]==sliceOf[2])
#endif
#ifdef GOAL_ALL_FOLDED
#define GOAL (kvSpeed==2 && live==2 && seen==end && once[2])
#endif
#ifdef GOAL_ROLLED_BACK
#define GOAL (pinned && once[1])
#endif
#ifdef GOAL_STRANDED   /* a plan that was left behind by the trim has folded all again */
#define GOAL (begun == 2 && position == end && end > cutPos[2] && live == 2)
#endif
#ifdef GOAL_ANEW       /* the view answers with all, behind a cut with which the log was begun anew */
#define GOAL (repair == 6 && anewAt && cutPos[atCut[live]] > anewAt && begun <= atCut[live] && seen == end && copyOf[end])
#endif
#ifdef GOAL_HELD_OVER
#define GOAL (live == 3 && atCut[3] == 2 && sliceOf[3])
#endif
#ifdef GOAL_GARBAGE
#define GOAL (builds==8 && condemned)
#endif

hidden byte x, n, i, to, all, many, slot, set, kept;

#define UPTO(p)     ((1<<(p))-1)
#define BETWEEN(p,q) (ev & UPTO(q) & ~UPTO(p))   /* counted events behind p up to q */
#define HAS(s,e)    (((s)>>(e))&1)
#ifdef PROGRESS
#define FAULTS (!calm)
#else
#define FAULTS true
#endif

/* store.Positions: the further of what the speed table and positions say. */
inline stored() {
	x = position; n = 0;
	do
	:: n < CUTS -> if :: reach[n] > x -> x = reach[n] :: else fi; n++
	:: else -> break
	od; n = 0
}

/* Log.Anew publishes again what it rescued: a copy is the same event. In a set that history made of
 * both, there is one of them (canon); speed does not know the one before the log was begun anew. */
#ifdef ANEW
inline canon(theSet) {
	n = 1;
	do
	:: n <= LOG -> if :: copyOf[n] && HAS(theSet, n-1) -> theSet = (theSet & ~(1<<(n-1))) | (1<<(copyOf[n]-1)) :: else fi; n++
	:: else -> break
	od; n = 0
}
#else
inline canon(theSet) { skip }
#endif

/* layout.mergedSQL: the slices of a build, and the speed states of the epochs from a cut on. */
inline merge(bld, from) {
	all = 0; many = 0;
	if :: sliceOf[bld] -> all = rows1[sliceOf[bld]]; many = rows2[sliceOf[bld]] :: else fi;
	n = from;
	do
	:: n < CUTS -> many = many | twice[n] | (all & once[n]); all = all | once[n]; n++
	:: else -> break
	od; n = 0;
#ifdef ANEW
	/* What the archiver took after repair had looked is archived and published again: a duplicate at
	 * a distance beyond the speed layer's horizon, which the next build heals. Any other is none. */
	n = 1;
	do
	:: n <= LOG ->
		if
		:: copyOf[n] && HAS(all, n-1) && HAS(all & ~late, copyOf[n]-1) -> many = many | (1<<(n-1))
		:: else
		fi; n++
	:: else -> break
	od; n = 0;
	canon(all)
#endif
}

/* layout.mergedSQL: the view throws when speed states do not reach back to the build. */
#ifdef BUG_VIEW_IGNORES_BEGINS
#define THROWS(bld) false
#else
#define THROWS(bld) (begun > CUTOF(bld))
#endif
/* It may, until the next build, where the log was begun anew, or where a rollback and a plan's new
 * beginning did not see each other. */
#ifdef ANEW
#define MAYTHROW (raced || (anewAt && begun == epochAt[anewAt]))
#else
#define MAYTHROW raced
#endif

/* What a reader sees, looked at after every step that changes a table which it reads: the view
 * answers, or throws where it may; no event is counted twice; all events up to the cut at which the
 * live build's slices stand, or up to the stored position if that is further, are counted, and none
 * beyond; no answer goes back. */
inline look() {
	assert(HAS(builds, live));        /* the view answers */
	if
	:: THROWS(live) -> assert(MAYTHROW)  /* the view throws */
	:: else ->
		stored();
		if :: cutPos[CUTOF(live)] > x -> x = cutPos[CUTOF(live)] :: else fi;
		merge(live, CUTOF(live));
		assert(many == 0);                 /* no-double */
		set = BETWEEN(0, x);
#ifdef ANEW
		if :: anewAt && x >= anewAt -> set = set & ~skipped :: else fi;
#endif
		canon(set);
		assert(all == set);                /* no-loss */
		set = 0;
		assert(x >= seen);                /* no answer goes back */
		seen = x
	fi;
#ifdef GOAL
	assert(!(GOAL));                  /* reached */
#endif
	all = 0; many = 0; x = 0
}

inline clear(s) { s.st = 0; s.kind = 0; s.term = 0; s.a = 0; s.b = 0; s.ep = 0; s.own = 0 }

#ifdef BUG_NO_BATCH_FENCE
#define REFUSED(k) (bt[k].st == SENT && bt[k].kind == CUT && bt[k].a != lastCut)
#else
#ifdef BUG_CUT_NUMBER_TWICE
#define REFUSED(k) (bt[k].st == SENT && bt[k].kind != CUT && bt[k].term < termBatch)
#else
#define REFUSED(k) (bt[k].st == SENT && ((bt[k].kind == CUT && bt[k].a != lastCut) || (bt[k].kind != CUT && bt[k].term < termBatch)))
#endif
#endif

/* An insert that nobody waits for and that its fence will refuse changes nothing: it is gone. */
inline sweep() {
	i = 0;
	do
	:: i < SLOTS -> if :: sp[i].st == SENT && !sp[i].own && sp[i].term < termSpeed -> clear(sp[i]) :: else fi; i++
	:: else -> break
	od; i = 0
}
inline sweepBatch() {
	i = 0;
	do
	:: i < BSLOTS -> if :: REFUSED(i) && !bt[i].own -> clear(bt[i]) :: else fi; i++
	:: else -> break
	od; i = 0
}
/* A worker that died, lost its term, or does not know what became of an insert forgets all. */
inline stopWorker(k) {
	i = 0;
	do
	:: i < SLOTS -> if :: sp[i].own == k+1 -> sp[i].own = 0 :: else fi; i++
	:: else -> break
	od;
	sweep();
	w[k].pc = IDLE; w[k].term = 0; w[k].mark = 0
}
inline stopBatch(k) {
	i = 0;
	do
	:: i < BSLOTS -> if :: bt[i].own == k+1 -> bt[i].own = 0 :: else fi; i++
	:: else -> break
	od;
	sweepBatch();
	b[k].pc = IDLE; b[k].term = 0; b[k].n = 0; b[k].id = 0; b[k].at = 0;
	b[k].old = 0; b[k].gone = 0; b[k].oldest = 0; b[k].pin = 0; b[k].back = 0
}

/* Who has an older term will be refused by the fence at its next insert, and has changed nothing
 * until then: it may as well stop now. (LITERAL leaves it running, at many times the states.)
 * Not so a batch whose next step knows no fence: it may publish a cut, or drop a partition. */
inline depose() {
	sweep();
#ifndef LITERAL
	n = 0;
	do
	:: n < WORKERS -> if :: w[n].pc != IDLE && w[n].term < termSpeed -> stopWorker(n) :: else fi; n++
	:: else -> break
	od; n = 0
#endif
}
inline deposeBatch() {
	sweepBatch();
#ifndef LITERAL
#ifndef BUG_NO_BATCH_FENCE
	n = 0;
	do
	:: n < BATCHES ->
		if
		:: b[n].term < termBatch && (b[n].pc == TERM || b[n].pc == ENDING || b[n].pc == AWAITING || b[n].pc == SLICING || b[n].pc == COUNTING || b[n].pc == SAVING) -> stopBatch(n)
		:: else
		fi; n++
	:: else -> break
	od; n = 0
#endif
#endif
}

/* slot = first free slot; the caller has made sure that there is one. */
inline pick() {
	slot = 0;
	do :: sp[slot].st != FREE -> slot++ :: else -> break od
}
inline pickBatch() {
	slot = 0;
	do :: bt[slot].st != FREE -> slot++ :: else -> break od
}
#define ROOM  (sp[0].st == FREE || sp[1].st == FREE || sp[2].st == FREE)
#define BROOM (bt[0].st == FREE || bt[1].st == FREE)

#ifdef BUG_FLUSH_ACROSS_CUT
#define SAME_EPOCH(p,q) true
#else
#define SAME_EPOCH(p,q) (epochAt[p] == epochAt[q])
#endif

/* system.processes shows no speed insert of a term older than t. */
#ifdef BUG_TAKEOVER_DOES_NOT_WAIT
#define ENDED(t) true
#else
#define ENDED(t) (!(sp[0].st == PASSED && sp[0].term < t) && !(sp[1].st == PASSED && sp[1].term < t) && !(sp[2].st == PASSED && sp[2].term < t))
#endif

/* What is not in history is in the log, or was rescued. */
inline unread() {
#ifdef ANEW
	if
	:: !anewAt && repair < 3 -> assert(first == 1 || BETWEEN(archived, first-1) == 0)
	:: else
	fi
#else
	assert(first == 1 || BETWEEN(archived, first-1) == 0)     /* in neither */
#endif
}

/* Publishers: Log.Publish. The second event is one that the view's filter drops. */
proctype Publisher() {
endPublisher:
	do
	:: atomic { published < EVENTS && OPEN ->
		published++; end++; epochAt[end] = lastCut;
		if :: published != 2 -> ev = ev | (1<<(end-1)) :: else fi }
	od
}

/* Archivers, any number of them: Archiver.take, cross, archivedType.commit. A commit is atomic
 * and refused unless the txn is where its writer believes it (change.expect). None straddles a
 * cut, and nobody looks at those between cuts: one step a cut is all there is to see. */
proctype Archiver() {
endArchiver:
	do
#ifdef BUG_ARCHIVER_STRADDLES
	:: atomic { archived < end ->
		to = archived+1;
		do :: to < end -> to++ :: break od; skip;
		d_step { n = 1;
		do
		:: n < CUTS -> if :: cutPos[n] > archived && cutPos[n] <= to -> snapshot[n] = to :: else fi; n++
		:: else -> break
		od; n = 0 }
		archived = to; to = 0 }
#else
	:: atomic { archived < cutPos[lastCut] && INLOG(archived) -> d_step {
		archived++;
		do :: epochAt[archived] == epochAt[archived-1] -> archived++ :: else -> break od;
		unread() } }
#ifdef ANEW
	/* A log that was begun anew: every type commits at the cut that it begins with. */
	:: atomic { anewAt && archived < anewAt && first == anewAt -> d_step {
		skipped = skipped | (UPTO(anewAt-1) & ~UPTO(archived));
		archived = anewAt } }
#endif
#endif
	od
}

#if TRIMS
/* Log.Trim, up to a cut that history has reached. That a plan stands before it is no hindrance: so
 * it is when the log is nearly full. Both positions only grow, so that it does not matter when
 * they were read. */
proctype Trimmer() {
endTrimmer:
	do
	:: atomic { trims < TRIMS && first < cutPos[lastCut] ->
		n = 1;
		do
		:: n < lastCut -> n++
		:: break
		od;
		if
#ifdef BUG_TRIM_UNARCHIVED
		:: cutPos[n] > first -> trims++; first = cutPos[n]
#else
		:: cutPos[n] > first && cutPos[n] <= archived -> trims++; first = cutPos[n]
#endif
		:: else
		fi;
		n = 0;
		d_step { unread() } }
	od
}
#endif

#ifdef ANEW
/* Log.Anew, for a log that is there. Whatever it dies of, it is called again and goes on where the
 * log and the rescue stream say that it was: to die is to pause. */
proctype Repair() {
endRepair:
	do
	/* Nothing is taken any more, neither events nor cuts. */
	:: atomic { repair == 0 && FAULTS -> keptUpTo = archived; repair = 1;
#ifndef BUG_ANEW_LEAVES_THE_LOG_OPEN
		away = true
#endif
	}
	/* The mark, and a copy of all before it that history did not have. */
	:: atomic { repair == 1 -> d_step {
#ifndef BUG_ANEW_WITHOUT_RESCUE
		rescue = ev & UPTO(end) & ~UPTO(keptUpTo);
		if :: first > 1 -> rescue = rescue & ~UPTO(first-1) :: else fi;
#endif
		repair = 2 } }
	/* The log is emptied. */
	:: atomic { repair == 2 -> d_step {
		away = true;
		if :: archived > keptUpTo -> late = UPTO(archived) & ~UPTO(keptUpTo) :: else fi;
		first = end+1; repair = 3 } }
	/* The cut, above all that were there; then the subjects are given back. */
	:: atomic { repair == 3 -> d_step {
		lastCut++; end++; epochAt[end] = lastCut; cutPos[lastCut] = end;
		anewAt = end; first = end; repair = 4 } }
	:: atomic { repair == 4 -> away = false; repair = 5 }
	:: atomic { repair == 5 && rescue -> d_step {
		n = 1;
		do :: !HAS(rescue, n-1) -> n++ :: else -> break od;
		rescue = rescue & ~(1<<(n-1));
		end++; epochAt[end] = lastCut; copyOf[end] = n; ev = ev | (1<<(end-1)); n = 0 } }
	:: atomic { repair == 5 && !rescue -> d_step {
		repair = 6;
		set = (ev & UPTO(keptUpTo)) | (ev & ~UPTO(anewAt)); canon(set);
		all = ev; canon(all);
		assert(set == all);               /* what was acknowledged is in history or in the log */
		set = 0; all = 0 } }
	od
}
#endif

/* An unknown outcome after which the worker goes on under its old term. */
inline stopWorkerKeep(k) {
	i = 0;
	do
	:: i < SLOTS -> if :: sp[i].own == k+1 -> sp[i].own = 0 :: else fi; i++
	:: else -> break
	od; i = 0;
	w[k].pc = FOLDING
}

inline killed(k) {
	set = sp[k].own;
	clear(sp[k]);
	if :: set -> stopWorker(set-1) :: else fi;
	set = 0
}

/* speed.Worker.Run: sessions, one after another. */
proctype Worker(byte me) {
endWorker:
	do
	/* session.takeOver 1, Log.Next. (Two idle workers are alike: the first one starts first.) */
	:: atomic { w[me].pc == IDLE && kvSpeed < SESSIONS && (me == 0 || w[0].pc != IDLE) ->
		kvSpeed++; w[me].term = kvSpeed; w[me].pc = TERM;
#ifdef BUG_POSITIONS_BEFORE_TERM
		d_step { stored(); w[me].mark = x; x = 0 }
#endif
	}
	/* session.takeOver 2, store.TakeOver: the term is recorded, or a newer one is there. */
	:: atomic { w[me].pc == TERM && termSpeed < w[me].term -> d_step { termSpeed = w[me].term; w[me].pc = ENDING; depose() } }
	:: atomic { w[me].pc == TERM && termSpeed > w[me].term -> d_step { stopWorker(me) } }
	/* The newer term came between its reading and our insert, which changes no maximum. */
	:: atomic { w[me].pc == TERM && termSpeed > w[me].term -> w[me].pc = ENDING }
	/* store.TakeOver: KILL QUERY ends an insert of an older term before it is in ... */
	:: atomic { w[me].pc == ENDING && FAULTS && sp[0].st == PASSED && sp[0].term < w[me].term -> d_step { killed(0) } }
	:: atomic { w[me].pc == ENDING && FAULTS && sp[1].st == PASSED && sp[1].term < w[me].term -> d_step { killed(1) } }
	:: atomic { w[me].pc == ENDING && FAULTS && sp[2].st == PASSED && sp[2].term < w[me].term -> d_step { killed(2) } }
	/* ... or it is waited for. Only then session.resume reads the positions back. */
	:: atomic { w[me].pc == ENDING && ENDED(w[me].term) ->
#ifndef BUG_POSITIONS_BEFORE_TERM
		d_step { stored(); w[me].mark = x; x = 0 }
#endif
		w[me].pc = FOLDING }
	/* lane.flush, store.InsertSpeed: any stretch behind the mark that lies in one epoch; if the
	 * filter dropped all of it, the position alone. lane.boundary: at a cut nothing is unflushed
	 * (one flush at a time, and it landed), and the cut's position in the new epoch is saved. */
	:: atomic { w[me].pc == FOLDING && w[me].mark < end && INLOG(w[me].mark) && ROOM ->
		d_step { pick(); to = w[me].mark+1 }
		if
		:: SAME_EPOCH(w[me].mark, to) ->
			do :: to < end && SAME_EPOCH(w[me].mark, to+1) -> to++ :: break od;
			sp[slot].ep = epochAt[w[me].mark];
			if
			:: BETWEEN(w[me].mark, to) -> sp[slot].kind = STATES; sp[slot].a = w[me].mark
#ifdef BUG_POSITION_BEFORE_STATES
			:: BETWEEN(w[me].mark, to) -> sp[slot].kind = POSITION; sp[slot].a = w[me].mark
#endif
			:: else -> sp[slot].kind = POSITION
			fi
		:: else -> sp[slot].kind = POSITION; sp[slot].ep = epochAt[to]
		fi;
		sp[slot].st = SENT; sp[slot].term = w[me].term; sp[slot].b = to; sp[slot].own = me+1;
		w[me].pc = FLUSHING; to = 0; slot = 0 }
#if TRIMS || ANEWS
	/* The plan stands before the log's first message. It waits until the live build covers it up to
	 * a cut that is in the log, and begins there: store.Begin, then the position. A log begun anew
	 * it takes up at its first cut. */
	:: atomic { w[me].pc == FOLDING && !INLOG(w[me].mark) && first <= end && ROOM ->
		to = 0;
		if
#ifdef ANEW
		:: first == anewAt && w[me].mark < anewAt -> to = epochAt[anewAt]
		:: !(first == anewAt && w[me].mark < anewAt) && INLOG(cutPos[atCut[live]]) -> to = atCut[live]
#else
		:: INLOG(cutPos[atCut[live]]) -> to = atCut[live]
#endif
		:: else
		fi;
		if
		:: to ->
			d_step { pick();
			sp[slot].st = SENT; sp[slot].term = w[me].term; sp[slot].b = cutPos[to]; sp[slot].ep = to; sp[slot].own = me+1;
#ifdef BUG_BEGIN_AFTER_STATES
			sp[slot].kind = POSITION; sp[slot].a = 1;
#else
			sp[slot].kind = BEGIN;
#endif
			slot = 0; to = 0 }
			w[me].pc = FLUSHING
		:: else
		fi }
#endif
	/* A crash anywhere; or an insert of unknown outcome, which is a takeover from oneself
	 * (Worker.Run, "starting over"): of both nothing is left but the insert. */
	:: atomic { w[me].pc != IDLE && FAULTS -> d_step { stopWorker(me) } }
#ifdef BUG_RETRY_UNDER_SAME_TERM
	:: atomic { w[me].pc == FLUSHING -> d_step { stopWorkerKeep(me) } }
#endif
#ifdef BUG_READ_BACK_UNDER_SAME_TERM
	:: atomic { w[me].pc == FLUSHING -> d_step { stopWorkerKeep(me); stored(); w[me].mark = x; x = 0 } }
#endif
	od
}

/* A rollback to a build at an older cut has looked at begins, and has not flipped yet, or may have. */
#define ABOUT(k) (b[k].back && atCut[b[k].n] < begun)
#if BATCHES == 1
#define ROLLING (ABOUT(0) || BACK(0) || BACK(1))
#else
#define ROLLING (ABOUT(0) || ABOUT(1) || BACK(0) || BACK(1))
#endif
#define BACK(k) (bt[k].st && bt[k].kind == FLIP && atCut[bt[k].a] < begun)

/* A speed insert on its way through ClickHouse. That it is answered is one step with that it
 * is in: an answer which is lost is a crash or an unknown outcome right behind it. */
proctype SpeedInsert(byte me) {
endSpeedInsert:
	do
	/* system.fenceSQL: the newest term is looked up when the block arrives. */
	:: atomic { sp[me].st == SENT ->
		if
		:: sp[me].term < termSpeed -> d_step { killed(me) }  /* FencedError */
		:: else -> sp[me].st = PASSED
		fi }
	/* One block in one partition: states and position are in together. */
	:: atomic { sp[me].st == PASSED -> d_step {
		if
		:: sp[me].kind == STATES ->
			set = BETWEEN(sp[me].a, sp[me].b);
			n = sp[me].ep;
			twice[n] = twice[n] | (once[n] & set); once[n] = once[n] | set;
			if :: sp[me].b > reach[n] -> reach[n] = sp[me].b :: else fi
		:: sp[me].kind == BEGIN ->
			if
			:: sp[me].ep > begun ->
				begun = sp[me].ep;
				if :: atCut[live] < begun || ROLLING -> raced = true :: else fi
			:: else
			fi
		:: else -> if :: sp[me].b > position -> position = sp[me].b :: else fi
		fi;
		set = 0; n = 0;
#ifdef BUG_BEGIN_AFTER_STATES
		if
		:: sp[me].kind == POSITION && sp[me].a && sp[me].own -> sp[me].kind = BEGIN; sp[me].a = 0; sp[me].st = SENT
		:: else ->
#else
#if TRIMS || ANEWS
		if
		:: sp[me].kind == BEGIN && sp[me].own -> sp[me].kind = POSITION; sp[me].st = SENT
		:: else ->
#endif
#endif
#ifdef BUG_POSITION_BEFORE_STATES
		if
		:: sp[me].kind == POSITION && sp[me].a && sp[me].own -> sp[me].kind = STATES; sp[me].st = SENT
		:: else ->
#endif
		if :: sp[me].own -> w[sp[me].own-1].mark = sp[me].b; w[sp[me].own-1].pc = FOLDING :: else fi;
		clear(sp[me]);
#ifdef BUG_POSITION_BEFORE_STATES
		fi;
		if :: sp[me].st == FREE -> look() :: else fi
#else
#if TRIMS || ANEWS
		fi;
#endif
		look()
#endif
	} }
	od
}

#ifdef BUG_ARCHIVER_STRADDLES
#define HISTORY(c) snapshot[c]
#else
#define HISTORY(c) cutPos[c]
#endif
#define SNAPSHOT(c) (BETWEEN(0, HISTORY(c)) & ~SKIPPED)

inline send(k, what, aa, bb) {
	d_step { pickBatch();
	bt[slot].st = SENT; bt[slot].kind = what; bt[slot].term = b[k].term; bt[slot].own = k+1;
	bt[slot].a = aa; bt[slot].b = bb; slot = 0 }
}

inline killedBatch(k) {
	set = bt[k].own;
	clear(bt[k]);
	if :: set -> stopBatch(set-1) :: else fi;
	set = 0
}

/* Of the older builds that garbage keeps, those that were never live do not count: else one that
 * was live until now could go while queries still read it. */
#ifdef BUG_GARBAGE_COUNTS_UNSHOWN
#define COUNTS(k) true
#else
#define COUNTS(k) HAS(shown, k)
#endif

/* batch.Run and batch.Rollback, again and again. */
proctype BatchJob(byte me) {
endBatchJob:
	do
	/* run.lease: as session.takeOver. */
	:: atomic { b[me].pc == IDLE && kvBatch < RUNS && (me == 0 || b[0].pc != IDLE) ->
		kvBatch++; b[me].term = kvBatch; b[me].pc = TERM }
	:: atomic { b[me].pc == TERM && termBatch < b[me].term -> d_step { termBatch = b[me].term; b[me].pc = ENDING; deposeBatch() } }
	:: atomic { b[me].pc == TERM && termBatch > b[me].term -> d_step { stopBatch(me) } }
	:: atomic { b[me].pc == TERM && termBatch > b[me].term -> b[me].pc = ENDING }
	:: atomic { b[me].pc == ENDING && FAULTS && bt[0].st >= PASSED && bt[0].term < b[me].term -> d_step { killedBatch(0) } }
	:: atomic { b[me].pc == ENDING && FAULTS && bt[1].st >= PASSED && bt[1].term < b[me].term -> d_step { killedBatch(1) } }
#define LEASED (b[me].pc == ENDING && !(bt[0].st >= PASSED && bt[0].term < b[me].term) && !(bt[1].st >= PASSED && bt[1].term < b[me].term))
	/* run.lease: reads the last cut, that its term is the newest still, and what is live.
	 * run.publish, Log.PublishCut: sends the next cut, with that last one as the one expected. */
	:: atomic { LEASED && b[me].term < termBatch -> d_step { stopBatch(me) } }
	:: atomic { LEASED && b[me].term == termBatch && BROOM ->
		b[me].pin = pinned; b[me].pc = PUBLISHING;
		send(me, CUT, lastCut, 0) }
	/* Rollback: to an older build that is listed, pinned; or, released, to a newer one. */
	:: atomic { LEASED && b[me].term == termBatch && rollbacks < ROLLBACKS && (builds & ~(1<<live)) ->
		n = 0;
		do
		:: n < CUTS-1 -> n++
		:: HAS(builds, n) && n != live -> break
		:: n == CUTS-1 -> break
		od;
		d_step {
		to = n;
		stored();
		if
		:: !HAS(builds, to) || to == live -> skip
#ifndef BUG_ROLLBACK_PAST_SPEED
		:: HAS(builds, to) && to < live && x < cutPos[atCut[live]] -> skip  /* epochs are not complete: refused */
#endif
#ifndef BUG_ROLLBACK_IGNORES_BEGINS
		:: HAS(builds, to) && begun > atCut[to] -> skip  /* they do not reach back as far: refused */
#endif
		:: else ->
			rollbacks++; b[me].n = to; b[me].back = 1; b[me].pc = SAVED
		fi;
		x = 0; to = 0 } }
	/* run.await: the table has a commit whose txn is the cut. */
	:: atomic { b[me].pc == AWAITING && archived >= cutPos[b[me].n] && !HAS(SKIPPED, cutPos[b[me].n]-1) -> b[me].pc = SLICING }
#if HELD
	/* Its archive is late: the plan keeps the slices that it has in the live build, and their cut. */
	:: atomic { b[me].pc == AWAITING && archived < cutPos[b[me].n] && heldOver < HELD ->
		heldOver++; b[me].id = sliceOf[live]; b[me].at = atCut[live]; b[me].pc = SAVING }
#endif
	/* run.plan: a slice that is registered under the key, and not condemned, is used again; of
	 * several the newest. Otherwise computation: the date is folded and goes into a partition
	 * whose id no other run has (inserter.parcel, schemas.SliceID). */
	:: atomic { b[me].pc == SLICING && BROOM ->
		d_step {
		set = SNAPSHOT(b[me].n); canon(set); n = RUNS; b[me].id = 0;
		do
		:: n > 0 && HAS(registered & ~condemned, n) && key[n] == set -> b[me].id = n; break
		:: n > 0 && !(HAS(registered & ~condemned, n) && key[n] == set) -> n--
		:: n == 0 -> break
		od }
		if
		:: set == 0 -> b[me].pc = SAVING; b[me].id = 0
		:: set && b[me].id -> b[me].pc = SAVING
		:: else ->
			b[me].id = b[me].term;
#ifdef BUG_SLICE_ID_REUSED
			d_step { n = 1;
			do
			:: n <= RUNS && !HAS(registered, n) && key[n] == set -> b[me].id = n; break
			:: n <= RUNS && !(!HAS(registered, n) && key[n] == set) -> n++
			:: n > RUNS -> break
			od;
			key[b[me].id] = set }
#endif
			send(me, ROWS, b[me].id, set);
#ifdef BUG_FLIP_BEFORE_SLICES
			d_step { i = 0; do :: bt[i].own == me+1 -> bt[i].own = 0; break :: else -> i++ od; i = 0 }
			b[me].pc = SAVING
#else
			b[me].pc = INSERTING
#endif
		fi;
		set = 0; n = 0 }
	/* inserter.deliver 2, store.CountSlices: as many groups as were sent. A merge folds equal
	 * groups into one, so that the count does not tell rows that are there twice. */
	:: atomic { b[me].pc == COUNTING && BROOM ->
		d_step { set = SNAPSHOT(b[me].n); canon(set) }
		if
		:: rows1[b[me].id] == set -> send(me, REGISTER, b[me].id, set); b[me].pc = REGISTERING
		:: else -> d_step { stopBatch(me) }
		fi;
		set = 0 }
	/* run.flip 1, store.SaveBuild. */
	:: atomic { b[me].pc == SAVING && BROOM ->
		send(me, BUILD, b[me].n, b[me].id);
		d_step { i = 0; do :: bt[i].own == me+1 -> bt[i].ep = b[me].at; break :: else -> i++ od; i = 0 }
		b[me].pc = FLIPPING }
	/* run.flip 3, Log.Next("flip"), store.Flip: refused for a build that is not there or whose
	 * slices are condemned; not done while a rollback pins. */
	:: atomic { b[me].pc == SAVED && BROOM ->
		if
		:: !b[me].back && b[me].pin -> b[me].pc = GARBAGE
		:: else ->
			if
			:: !HAS(builds, b[me].n) || HAS(condemnedBuilds, b[me].n) || (sliceOf[b[me].n] && HAS(condemned, sliceOf[b[me].n])) ->
				d_step { stopBatch(me) }
			:: else ->
				kvFlip++;
				send(me, FLIP, b[me].n, kvFlip);
				d_step { i = 0; do :: bt[i].own == me+1 -> bt[i].ep = (b[me].back && b[me].n < live); break :: else -> i++ od; i = 0 }
				b[me].pc = FLIPPED
			fi
		fi }
	/* store.Garbage: what is live, the builds, and by them what may go. */
	:: atomic { b[me].pc == GARBAGE -> d_step {
		n = 0;
		do :: !HAS(builds, n) -> n++ :: else -> break od;
		b[me].oldest = n;
#if HELD
#ifndef BUG_GARBAGE_BY_THE_BUILDS_CUT
		do      /* the oldest cut at which anything that is kept stands */
		:: n < CUTS -> if :: HAS(builds, n) && atCut[n] < b[me].oldest -> b[me].oldest = atCut[n] :: else fi; n++
		:: else -> break
		od;
#endif
#endif
#ifdef BUG_GARBAGE_EPOCHS
		b[me].oldest = live;
#endif
		n = live; kept = KEEP; b[me].old = 0;
		do
		:: n == 0 -> break
		:: n > 0 -> n--;
			if
			:: HAS(builds, n) && kept > 0 -> if :: COUNTS(n) -> kept-- :: else fi
			:: HAS(builds, n) && kept == 0 -> b[me].old = b[me].old | (1<<n)
			:: else
			fi
		od;
		/* store.dropParts: parcels whose slices are all condemned, and those of older terms
		 * that were never registered. */
		n = 1; b[me].gone = 0;
		do
		:: n <= RUNS ->
			if
			:: HAS(registered, n) && HAS(condemned, n) -> b[me].gone = b[me].gone | (1<<n)
			:: !HAS(registered, n) && n < b[me].term -> b[me].gone = b[me].gone | (1<<n)
			:: else
			fi; n++
		:: else -> break
		od; kept = 0;
		n = 1;      /* what is dropped already need not be dropped again */
		do
		:: n <= RUNS -> if :: HAS(b[me].gone, n) && !rows1[n] -> b[me].gone = b[me].gone & ~(1<<n) :: else fi; n++
		:: else -> break
		od;
		n = 0; set = 0;
		do
		:: n < b[me].oldest -> set = set | once[n] | reach[n]; n++
		:: else -> break
		od; n = 0;
		if :: !set -> b[me].oldest = 0 :: else fi; set = 0;
		if
		:: b[me].gone || b[me].oldest -> b[me].pc = DROPPING
		:: !b[me].gone && !b[me].oldest && b[me].old -> b[me].pc = CONDEMNING
		:: else -> stopBatch(me)
		fi } }
	/* store.dropParts: ALTER ... DROP PARTITION knows no fence. */
	:: atomic { b[me].pc == DROPPING -> d_step {
		n = 1;
		do
		:: n <= RUNS -> if :: HAS(b[me].gone, n) -> rows1[n] = 0; rows2[n] = 0 :: else fi; n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < b[me].oldest -> once[n] = 0; twice[n] = 0; reach[n] = 0; n++
		:: else -> break
		od; n = 0;
		b[me].gone = 0; b[me].oldest = 0;
		if :: b[me].old -> b[me].pc = CONDEMNING :: else -> stopBatch(me) fi;
		look() } }
	/* store.condemn: registered slices that no build names but the old ones; with them the old
	 * builds themselves, so that no flip can go back to one that is about to be dropped. */
	:: atomic { b[me].pc == CONDEMNING && b[me].old && BROOM ->
		d_step {
		set = registered & ~condemned; n = 0;
		do
		:: n < CUTS -> if :: HAS(builds, n) && !HAS(b[me].old, n) && sliceOf[n] -> set = set & ~(1<<sliceOf[n]) :: else fi; n++
		:: else -> break
		od; n = 0 }
#ifdef BUG_BUILDS_NOT_CONDEMNED
		if
		:: set == 0 -> b[me].pc = FORGETTING
		:: else -> send(me, CONDEMN, set, 0); b[me].pc = CONDEMNED
		fi;
#else
		send(me, CONDEMN, set, b[me].old); b[me].pc = CONDEMNED;
#endif
		set = 0 }
	/* store.garbage: ALTER TABLE builds DROP PARTITION knows no fence either. */
	:: atomic { b[me].pc == FORGETTING -> d_step {
		builds = builds & ~b[me].old; n = 0;
		do
		:: n < CUTS -> if :: !HAS(builds, n) -> sliceOf[n] = 0; atCut[n] = 0 :: else fi; n++
		:: else -> break
		od; n = 0;
		stopBatch(me);
		look() } }
	/* A crash anywhere, or an insert of unknown outcome: the run is over. */
	:: atomic { b[me].pc != IDLE && FAULTS -> d_step { stopBatch(me) } }
	od
}

#define DONE(next) if :: bt[me].own -> b[bt[me].own-1].pc = next :: else fi

/* What a batch has sent, on its way through the log or ClickHouse. */
proctype BatchInsert(byte me) {
endBatchInsert:
	do
	/* Log.publishCut: the log takes it only if the last cut is still the one expected
	 * (expected-last-subject-sequence). No term is looked at. */
	:: atomic { bt[me].st == SENT && bt[me].kind == CUT -> d_step {
		if
#ifndef BUG_CUT_NUMBER_TWICE
		:: bt[me].a != lastCut || !OPEN -> killedBatch(me)   /* ErrCutTaken, or refused */
#endif
		:: else ->
			n = bt[me].a+1;
			assert(n > lastCut);                    /* a cut number is never published twice */
			lastCut = n; end++; epochAt[end] = n; cutPos[n] = end; n = 0;
			if :: bt[me].own -> b[bt[me].own-1].pc = AWAITING; b[bt[me].own-1].n = lastCut; b[bt[me].own-1].at = lastCut :: else fi;
			clear(bt[me]);
			sweepBatch()
		fi } }
	/* system.fenceSQL. */
	:: atomic { bt[me].st == SENT && bt[me].kind != CUT ->
		if
#ifndef BUG_NO_BATCH_FENCE
		:: bt[me].term < termBatch -> d_step { killedBatch(me) }
#endif
		:: else -> bt[me].st = PASSED
		fi }
	/* store.InsertSlices need not be atomic: some rows are in, then all. */
	:: atomic { bt[me].st == PASSED && bt[me].kind == ROWS -> d_step {
		set = bt[me].b & ~(bt[me].b - 1);
		rows2[bt[me].a] = rows2[bt[me].a] | (rows1[bt[me].a] & set); rows1[bt[me].a] = rows1[bt[me].a] | set;
		set = 0;
		bt[me].st = HALF;
		look() } }
	:: atomic { bt[me].st == HALF -> d_step {
		set = bt[me].b & (bt[me].b - 1);
		rows2[bt[me].a] = rows2[bt[me].a] | (rows1[bt[me].a] & set); rows1[bt[me].a] = rows1[bt[me].a] | set;
		set = 0;
		DONE(COUNTING);
		clear(bt[me]);
		look() } }
	:: atomic { bt[me].st == PASSED && bt[me].kind == REGISTER -> d_step {
		registered = registered | (1<<bt[me].a); key[bt[me].a] = bt[me].b;
		DONE(SAVING);
		clear(bt[me]) } }
	:: atomic { bt[me].st == PASSED && bt[me].kind == BUILD -> d_step {
		builds = builds | (1<<bt[me].a); sliceOf[bt[me].a] = bt[me].b; atCut[bt[me].a] = bt[me].ep;
		DONE(SAVED);
		clear(bt[me]);
		look() } }
	:: atomic { bt[me].st == PASSED && bt[me].kind == FLIP -> d_step {
		if :: bt[me].b > flip -> flip = bt[me].b; live = bt[me].a; shown = shown | (1<<live); pinned = bt[me].ep :: else fi;
#ifdef READER
		flips++;
#endif
		if
		:: bt[me].own && b[bt[me].own-1].back -> i = bt[me].own-1; set = i; stopBatch(set); set = 0
		:: bt[me].own && !b[bt[me].own-1].back -> b[bt[me].own-1].pc = GARBAGE
		:: else
		fi;
		clear(bt[me]);
		look() } }
	:: atomic { bt[me].st == PASSED && bt[me].kind == CONDEMN -> d_step {
		condemned = condemned | bt[me].a; condemnedBuilds = condemnedBuilds | bt[me].b;
		DONE(FORGETTING);
		clear(bt[me]) } }
	/* The connection was lost before it arrived. (Without this a cut that never lands holds its slot.) */
	:: atomic { bt[me].st == SENT && bt[me].kind == CUT && bt[me].own == 0 -> d_step { clear(bt[me]) } }
	od
}

#ifdef READER
/* A query that takes its time: it reads live, once, and later the tables. It may be overtaken by
 * as many flips as older builds are kept. */
proctype Reader() {
	byte mine, since;
endReader:
	do
	:: atomic { mine = live; since = flips;
		goto reading }
	od;
reading:
	atomic {
		if
		:: flips - since <= KEEP ->
			d_step {
			stored();
			if :: cutPos[atCut[mine]] > x -> x = cutPos[atCut[mine]] :: else fi;
#ifdef BUG_LIVE_READ_TWICE
			merge(mine, atCut[live]);
#else
			merge(mine, atCut[mine]);
#endif
			assert(HAS(builds, mine));
			assert(many == 0);              /* one-mine: the answer is that of one build, whole */
			assert(all == BETWEEN(0, x));
			all = 0; many = 0; x = 0 }
		:: else
		fi;
		mine = 0; since = 0;
		goto endReader }
}
#endif

#ifdef PROGRESS
/* At some moment faults end. What then comes to rest has finished its work. */
proctype Calm() {
	calm = true;
endCalm:
	atomic { timeout -> d_step {
		stored();
		i = 0;
		do
		:: i < WORKERS ->
			assert(w[i].pc == IDLE || w[i].pc == FOLDING);
			assert(!(w[i].pc == FOLDING && w[i].term == termSpeed) || x == end || !INLOG(w[i].mark));
			i++
		:: else -> break
		od; i = 0;
		do
		:: i < BATCHES -> assert(b[i].pc == IDLE); i++
		:: else -> break
		od; i = 0; x = 0;
		assert(archived >= cutPos[lastCut]) } }
}
#endif

init {
	atomic {
		cutPos[1] = 1; epochAt[1] = 1;
		run Publisher(); run Archiver();
#if TRIMS
		run Trimmer();
#endif
#ifdef ANEW
		run Repair();
#endif
		run SpeedInsert(0); run SpeedInsert(1); run SpeedInsert(2);
		run BatchInsert(0); run BatchInsert(1);
		i = 0;
		do :: i < WORKERS -> run Worker(i); i++ :: else -> break od;
		i = 0;
		do :: i < BATCHES -> run BatchJob(i); i++ :: else -> break od;
		i = 0;
#ifdef READER
		run Reader();
#endif
#ifdef PROGRESS
		run Calm();
#endif
	}
}
