#!/bin/bash
# Checks watershed.pml: the protocol must hold in every configuration, each seeded bug must be
# found, and each goal reached. Prints a table; exits 1 if a line of it is not as it should be.
#
#   run.sh             everything
#   run.sh PATTERN     the configurations whose name contains PATTERN; keeps the trails in ./trails
#
# Searches are full (no bitstate hashing). A search over MEMORY megabytes fails.
set -u
here=$(cd "$(dirname "$0")" && pwd)
model=$here/watershed.pml
MEMORY=${MEMORY:-7500}
for tool in spin gcc; do
	command -v $tool >/dev/null && continue
	echo "$tool is missing: apt-get install spin gcc libc6-dev" >&2
	exit 1
done
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0

# verdict LOG: which invariant was violated, if any.
verdict() {
	case $(grep -m1 '^pan:1:' "$1") in
	'') if grep -q 'errors: 0' "$1" && ! grep -qE 'max search depth too small|out of memory|memory limit' "$1"; then echo holds; else echo "search not finished"; fi ;;
	*many==0*) echo no-double ;;
	*'all==set'*|*'all=='*) echo no-loss ;;
	*'n>lastCut'*) echo "cut number twice" ;;
	*'x>=seen'*) echo "an answer goes back" ;;
	*'builds>>'*) echo "the view does not answer" ;;
	*'raced'*) echo "the view throws" ;;
	*'set==all'*) echo "an acknowledged event is lost" ;;
	*archived*) echo "in neither history nor log" ;;
	*'assertion violated  !('*|*'assertion violated !('*) echo reached ;;
	*) grep -m1 '^pan:1:' "$1" | cut -c8-60 ;;
	esac
}

# check KIND NAME SPINFLAGS...: KIND is holds, found or reached.
check() {
	local kind=$1 name=$2 got ok began log=$dir/log breadth=
	shift 2
	[[ $name == *"$pattern"* ]] || return 0
	if [[ $kind != holds ]]; then # the shortest way to what is looked for, for which no variable may be hidden
		breadth=-DBFS
		set -- "$@" -Dhidden=
	fi
	( cd "$dir" && rm -f pan* ./*.trail && spin -a "$@" "$model" >spin.out 2>&1 &&
		gcc -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -DMEMLIM=$MEMORY $breadth -o pan pan.c ) ||
		{ cat "$dir/spin.out" >&2; exit 1; }
	began=$(date +%s%N)
	( cd "$dir" && ./pan -m1000000 -w24 ) >"$log" 2>&1
	got=$(verdict "$log")
	case $kind in
	holds) [[ $got == holds ]]; ok=$? ;;
	reached) [[ $got == reached ]]; ok=$? ;;
	found) [[ $got != holds && $got != reached && $got != "search not finished" ]]; ok=$? ;;
	esac
	local line=$got
	[[ $kind == found ]] && line="found: $got"
	[[ $ok == 0 ]] || { line="WRONG: $got; want $kind"; failed=1; }
	printf '| %-32s | %9s | %7.1f | %s |\n' "$name" "$(awk '/states, stored/ {print $1; exit}' "$log")" \
		"$(( ($(date +%s%N) - began) / 100000000 ))e-1" "$line"
	if [[ -n $pattern ]] && compgen -G "$dir/*.trail" >/dev/null; then
		mkdir -p trails
		cp "$dir"/*.trail "trails/$name.trail"
		echo "    trail: spin -t -p -g -k trails/$name.trail $* $model" >&2
	fi
}

pattern=${1:-}
printf '| %-32s | %9s | %7s | %s |\n' configuration states seconds verdict
printf '|---|--:|--:|---|\n'

# The protocol.
check holds all                 -DEVENTS=2 -DSESSIONS=2 -DRUNS=2
check holds speed               -DEVENTS=3 -DSESSIONS=4 -DRUNS=1 -DBATCHES=1 -DROLLBACKS=0
check holds batch               -DEVENTS=1 -DSESSIONS=1 -DWORKERS=1 -DRUNS=3
check holds batch-keeps-one     -DEVENTS=1 -DSESSIONS=1 -DWORKERS=1 -DRUNS=3 -DKEEP=1
check holds slow-reader         -DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2 -DKEEP=1 -DREADER
check holds progress            -DEVENTS=2 -DSESSIONS=2 -DRUNS=2 -DBATCHES=1 -DPROGRESS
check holds literal             -DEVENTS=2 -DSESSIONS=2 -DRUNS=1 -DBATCHES=1 -DLITERAL

# A log that is trimmed, plans that are left behind by it, plans that are held over, and a log begun anew.
check holds trim                -DEVENTS=1 -DSESSIONS=2 -DRUNS=2 -DTRIMS=1
check holds trim-rollback       -DEVENTS=1 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2 -DBATCHES=1 -DKEEP=1 -DTRIMS=2
check holds held-over           -DEVENTS=1 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2 -DKEEP=1 -DHELD=2
check holds anew                -DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=1 -DBATCHES=1 -DROLLBACKS=0 -DANEW
check holds anew-takeover       -DEVENTS=1 -DSESSIONS=2 -DRUNS=1 -DBATCHES=1 -DROLLBACKS=0 -DANEW

# The model is not empty: what should happen can.
check reached goal-slice-used-again  -DEVENTS=2 -DSESSIONS=1 -DRUNS=2 -DGOAL_SLICE_USED_AGAIN
check reached goal-all-seen-by-speed -DEVENTS=2 -DSESSIONS=2 -DRUNS=1 -DGOAL_ALL_FOLDED
check reached goal-rolled-back       -DEVENTS=2 -DSESSIONS=1 -DRUNS=2 -DKEEP=1 -DGOAL_ROLLED_BACK
check reached goal-garbage           -DEVENTS=3 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2 -DROLLBACKS=0 -DGOAL_GARBAGE

check reached goal-stranded          -DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=1 -DBATCHES=1 -DTRIMS=1 -DGOAL_STRANDED
check reached goal-anew              -DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=1 -DBATCHES=1 -DANEW -DGOAL_ANEW
check reached goal-held-over         -DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2 -DBATCHES=1 -DHELD=1 -DGOAL_HELD_OVER

# Seeded bugs.
one="-DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=1 -DBATCHES=1"
two="-DEVENTS=2 -DSESSIONS=2 -DRUNS=1 -DBATCHES=1"
runs="-DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2"
check found flush-across-cut             $one -DBUG_FLUSH_ACROSS_CUT
check found flip-before-slices           $one -DBUG_FLIP_BEFORE_SLICES
check found cut-number-twice             $runs -DBUG_CUT_NUMBER_TWICE
check found retry-under-same-term        $one -DBUG_RETRY_UNDER_SAME_TERM
check found slice-id-reused              $runs -DBUG_SLICE_ID_REUSED
check found read-back-under-same-term    $one -DBUG_READ_BACK_UNDER_SAME_TERM
check found position-before-states       $two -DBUG_POSITION_BEFORE_STATES
check found positions-before-term        $two -DBUG_POSITIONS_BEFORE_TERM
check found takeover-does-not-wait       $two -DBUG_TAKEOVER_DOES_NOT_WAIT
check found archiver-straddles-cut       $one -DBUG_ARCHIVER_STRADDLES
check found live-read-twice              $one -DKEEP=1 -DREADER -DBUG_LIVE_READ_TWICE
check found no-batch-fence               $runs -DBUG_NO_BATCH_FENCE
check found garbage-drops-kept-epochs    $runs -DKEEP=1 -DBUG_GARBAGE_EPOCHS
check found builds-not-condemned         $runs -DBUG_BUILDS_NOT_CONDEMNED
check found garbage-counts-unshown       $runs -DKEEP=1 -DREADER -DBUG_GARBAGE_COUNTS_UNSHOWN
check found rollback-past-speed          $runs -DKEEP=1 -DBUG_ROLLBACK_PAST_SPEED
trim="$one -DTRIMS=1"
back="-DEVENTS=2 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2 -DBATCHES=1 -DKEEP=1 -DTRIMS=1"
anew="$one -DANEW -DROLLBACKS=0"
check found trim-past-the-archive        $trim -DBUG_TRIM_UNARCHIVED
check found begin-after-states           $back -DBUG_BEGIN_AFTER_STATES
check found view-ignores-begins          $anew -DBUG_VIEW_IGNORES_BEGINS
check found rollback-ignores-begins      $back -DBUG_ROLLBACK_IGNORES_BEGINS
check found anew-without-rescue          $anew -DBUG_ANEW_WITHOUT_RESCUE
check found anew-leaves-the-log-open     $anew -DBUG_ANEW_LEAVES_THE_LOG_OPEN
check found view-takes-the-builds-cut    $runs -DHELD=1 -DBUG_VIEW_TAKES_THE_BUILDS_CUT
check found garbage-by-the-builds-cut    -DEVENTS=1 -DSESSIONS=1 -DWORKERS=1 -DRUNS=2 -DHELD=2 -DROLLBACKS=0 -DBATCHES=1 -DBUG_GARBAGE_BY_THE_BUILDS_CUT
exit $failed
