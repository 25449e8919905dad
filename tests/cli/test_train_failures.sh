#!/bin/sh
# tests/cli/test_train_failures.sh SHOAL: a rank that fails in any phase of a run takes the job down in seconds, with its
# message, and one that hangs is found by the watchdog; what only takes long is not.
. "$(dirname "$0")/common.sh"
SHOAL_MPI_TIMEOUT=20 # 124: somebody waits for ever
"$shoal" synth "$dir/data.h5" --preset toy --users 400 >/dev/null || exit 1
recipe "$dir/c.yaml" model.heads=2 model.layers=1 batch.users=32 train.steps=4 train.out="$dir/run" comm.watchdog=0.01

# MPICH's mpiexec returns the number of a signal itself, and mixes codes of ranks that end at the same time.
killed=137 aborted=134
[ -z "${SHOAL_MPI:-}" ] || killed=9 aborted=6

# what ranks exit-code seconds: of the run made last
judge() {
  ended_with "$3" || complain "$1 on $2 ranks: exit code $code, expected $3"
  [ "$seconds" -le "$4" ] || complain "$1 on $2 ranks: took $seconds s"
}

# phase step ranks
fail_in() {
  last=$(($3 - 1))
  for how in error hang abort kill; do
    case $3.$how.$1 in
    2.abort.forward | 2.abort.checkpoint) ;;
    *.abort.* | 3.kill.*) continue ;; # nothing that the others have not shown
    esac
    started=$(date +%s)
    SHOAL_FAIL=$1:$2:$last:$how
    export SHOAL_FAIL
    run "$3" "$shoal" train "$dir/c.yaml"
    unset SHOAL_FAIL
    seconds=$(($(date +%s) - started))
    case $how in
    error)
      judge "$1:$how" "$3" 1 10
      [ "$(grep -c "^shoal: rank $last: SHOAL_FAIL: error in phase $1 of step $2" "$dir/err")" = 1 ] ||
        complain "$1:$how on $3 ranks: no message, or several"
      ;;
    hang)
      judge "$1:$how" "$3" 6 10
      for r in $(seq 0 $last); do
        grep -q "^shoal: rank $r on .*: no progress for .* min: step [0-9]*, phase [a-z]* for " "$dir/err" ||
          complain "$1:$how on $3 ranks: rank $r says nothing"
      done
      grep "^shoal: rank $last on" "$dir/err" | grep -q "phase $1 for .*, in no collective" ||
        complain "$1:$how on $3 ranks: rank $last does not say where it stands"
      grep "^shoal: rank 0 on" "$dir/err" | grep -qE ', in sh_[a-z0-9_]+ \([a-z_]+\) over axis [a-z]+, called at (src|mpi)/[a-z0-9_/]+\.c:[0-9]+, for' ||
        complain "$1:$how on $3 ranks: rank 0 does not name its collective"
      ;;
    abort) judge "$1:$how" "$3" $aborted 10 ;;
    kill) judge "$1:$how" "$3" $killed 10 ;;
    esac
  done
}
for n in 2 3; do
  for phase in load fetch forward loss backward sync update; do fail_in $phase 3 $n; done
  for phase in eval checkpoint; do fail_in $phase 4 $n; done
done

# One rank has nobody to wait for, and nobody else to speak.
SHOAL_FAIL=update:2:0:hang
export SHOAL_FAIL
expect 1 6 "step 2, phase update" train "$dir/c.yaml"
SHOAL_FAIL=updat:2:0
expect 1 2 "SHOAL_FAIL: found 'updat:2:0', expected phase:step:rank" train "$dir/c.yaml"
unset SHOAL_FAIL

# Far longer than the watchdog waits, but it moves: an evaluation of many rounds.
"$shoal" synth "$dir/more.h5" --preset toy --users 40000 >/dev/null || exit 1
for n in 1 2; do
  expect $n 0 "" train "$dir/c.yaml" data.path="$dir/more.h5" train.steps=1 eval.users=1 comm.watchdog=0.005
  seconds=$(sed -n 's/.*"kind":"eval".*"seconds":\([0-9.e-]*\).*/\1/p' "$dir/run/metrics.jsonl")
  echo "$seconds" | awk '{ exit !($1 > 0.6) }' || complain "$n ranks: an evaluation of $seconds s shows nothing"
done
exit $failed
