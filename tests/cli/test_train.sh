#!/bin/sh
# tests/cli/test_train.sh SHOAL [KILLS]: a run that is stopped or killed is resumed as if nothing had happened.
. "$(dirname "$0")/common.sh"

"$shoal" synth "$dir/data.h5" --preset toy --users 200 >/dev/null || exit 1
recipe "$dir/run.yaml" data.split=leave-two-out model.heads=2 batch.users=16 train.epochs=12 train.log_every=7 \
  checkpoint.every=5 checkpoint.keep=3
length=$((12 * 13 / 7 + 12 + 1)) # of metrics.jsonl: progress, validations, the test

# run-folder what: it has ended as the uninterrupted run did.
ended() {
  lasting "$1/metrics.jsonl" >"$dir/got"
  cmp -s "$dir/want.$2" "$dir/got" || {
    diff "$dir/want.$2" "$dir/got" | head -n 6 >"$dir/out"
    complain "$3: metrics.jsonl differs from that of an uninterrupted run"
  }
  whole "$1" "$3"
  [ -z "$(find "$1/ckpt" -name '*.partial')" ] || complain "$3: a .partial file is left"
  [ "$(find "$1/ckpt" -name 'step-*' | wc -l)" -le 3 ] || complain "$3: more than checkpoint.keep checkpoints"
}

for n in 1 2; do
  expect $n 0 "" train "$dir/run.yaml" train.out="$dir/whole.$n"
  lasting "$dir/whole.$n/metrics.jsonl" >"$dir/want.$n"
  [ "$(wc -l <"$dir/want.$n")" = $length ] || complain "$n ranks: metrics.jsonl does not have $length lines"
  whole "$dir/whole.$n" "$n ranks"
  # Nothing is there yet: resuming is starting. And nothing is left to do.
  expect $n 0 "" train "$dir/run.yaml" train.out="$dir/fresh.$n" train.epochs=3 --resume
  grep -q "starting from the beginning" "$dir/out" || complain "$n ranks: a fresh --resume does not say so"
  expect $n 0 "" resume "$dir/run.yaml" train.out="$dir/fresh.$n" train.epochs=3
  grep -q "nothing left to train" "$dir/out" || complain "$n ranks: a finished run does not say so"
done

# A communication thread beside checkpoints and evaluations: the same to the last digit.
expect 2 0 "" train "$dir/run.yaml" train.out="$dir/thread" comm.progress=thread
grep -q "progress thread" "$dir/out" || complain "comm.progress = thread: the run does not say so"
ended "$dir/thread" 2 "comm.progress = thread"

# A run's processes write their ids, so that signals can be sent to one of them.
cat >"$dir/rank.sh" <<END
#!/bin/sh
echo \$PPID >"$dir/mpirun.pid"
echo \$\$ >"$dir/pid.\${OMPI_COMM_WORLD_RANK:-\$PMI_RANK}"
exec "$shoal" "\$@"
END
chmod +x "$dir/rank.sh"

# run-folder arguments...: start on 2 ranks in the background and come back when some steps are done.
begin() {
  folder=$1
  shift
  rm -f "$dir"/pid.* "$dir/mpirun.pid"
  "$cli/../mpirun.sh" 2 "$dir/rank.sh" train "$dir/run.yaml" train.out="$folder" "$@" >"$dir/out" 2>"$dir/err" &
  job=$!
  tries=0
  until [ -s "$folder/ckpt/latest.h5" ] && [ "$(wc -l <"$folder/metrics.jsonl")" -ge 4 ]; do
    tries=$((tries + 1))
    if [ $tries -gt 1200 ] || ! kill -0 $job 2>/dev/null; then
      complain "the run to be stopped did not get under way"
      return
    fi
    sleep 0.05
  done
}

stop() { # signal process name
  out=$dir/$3
  begin "$out"
  kill -"$1" "$(cat "$dir/$2")"
  wait $job
  code=$?
  [ $code = 75 ] || complain "$3: exit code $code, expected 75"
  [ "$(grep -c '^shoal: stopped on request at step ' "$dir/err")" = 1 ] || complain "$3: no word about the stop"
  step=$(sed -n 's/^shoal: stopped on request at step \([0-9]*\).*/\1/p' "$dir/err")
  [ "$(readlink "$out/ckpt/latest.h5")" = "$(printf 'step-%012d.h5' "${step:-0}")" ] ||
    complain "$3: latest.h5 is not the checkpoint of the step it stopped at"
  whole "$out" "$3"
  expect 2 0 "" resume "$dir/run.yaml" train.out="$out"
  ended "$out" 2 "$3"
}
stop TERM pid.1 "SIGTERM to rank 1"
stop USR1 mpirun.pid "SIGUSR1 to mpirun"

# A stop that comes while an evaluation is due or running, the last one, too: it is the resumed run's.
for where in 26:1 156:0; do
  out=$dir/evaluating.${where%:*}
  export SHOAL_FAIL="eval:$where:stop"
  expect 2 75 "stopped on request at step ${where%:*}" train "$dir/run.yaml" train.out="$out"
  unset SHOAL_FAIL
  expect 2 0 "" resume "$dir/run.yaml" train.out="$out"
  ended "$out" 2 "a stop in the evaluation behind step ${where%:*}"
done

# ... and one that is killed behind a resumed evaluation leaves no line twice; a trace made before the stop is written.
out=$dir/twice
export SHOAL_FAIL=eval:13:0:stop
expect 2 75 "stopped on request" train "$dir/run.yaml" train.out="$out" --trace steps=12-13
[ -s "$out/trace.json" ] || complain "a stop in an evaluation took the trace with it"
export SHOAL_FAIL=checkpoint:13:1:error
run 2 "$shoal" resume "$dir/run.yaml" train.out="$out"
[ $code = 1 ] || complain "the checkpoint behind the resumed evaluation did not fail"
unset SHOAL_FAIL
expect 2 0 "" resume "$dir/run.yaml" train.out="$out"
ended "$out" 2 "an evaluation made twice"

# The final test is stopped as well, once it stands alone.
out=$dir/testing
expect 1 0 "" train "$dir/run.yaml" train.out="$out"
grep -v '"split":"test"' "$out/metrics.jsonl" >"$dir/lines" && cp "$dir/lines" "$out/metrics.jsonl"
export SHOAL_FAIL=eval:156:0:stop
expect 1 75 "stopped on request at step 156" resume "$dir/run.yaml" train.out="$out"
unset SHOAL_FAIL
expect 1 0 "" resume "$dir/run.yaml" train.out="$out"
ended "$out" 1 "a stop in the final test"

# A run that goes on after its test is tested again, unless the same checkpoint is still the best.
expect 1 0 "" train "$dir/run.yaml" train.out="$dir/longer" train.epochs=1
expect 1 0 "" resume "$dir/run.yaml" train.out="$dir/longer" train.epochs=3
expect 1 0 "" resume "$dir/run.yaml" train.out="$dir/longer" train.epochs=3
tested() { sed -n 's/.*"split":"test".*"weights_step":\([0-9]*\).*/\1/p' "$1/metrics.jsonl" | tr '\n' ' '; }
case $(tested "$dir/longer") in "13 26 " | "13 39 ") ;; *)
  complain "weights of these steps are tested: $(tested "$dir/longer"), expected the 13th and a better one" ;; esac
for steps in 5 10; do
  expect 1 0 "" train "$dir/run.yaml" train.out="$dir/steps" train.steps=$steps checkpoint.best=false --resume
done
[ "$(tested "$dir/steps")" = "5 10 " ] || complain "train.steps: tested are $(tested "$dir/steps")"

# Where the environment asks for teams within teams.
OMP_NUM_THREADS=2,2
expect 1 0 "" train "$dir/run.yaml" train.out="$dir/nested"
ended "$dir/nested" 1 "OMP_NUM_THREADS=2,2"
OMP_NUM_THREADS=1

# Whatever dies at any moment. Checkpoints are written all the time, so some die in the middle of one.
out=$dir/killed
kills=${2:-4}
i=0
while [ $i -lt "$kills" ]; do
  pause=$(awk -v i=$i 'BEGIN { print i * 0.0771 % 0.3 }')
  i=$((i + 1))
  rm -rf "$out"
  begin "$out" checkpoint.every=1
  sleep "$pause"
  kill -9 "$(cat "$dir/pid.1")"
  wait $job
  code=$?
  case $code in 0 | 75 | 124) complain "kill -9: exit code $code" ;; esac
  whole "$out" "kill -9 after $pause s"
done
expect 2 0 "" resume "$dir/run.yaml" train.out="$out"
ended "$out" 2 "kill -9"

# On another number of ranks it goes on as well, with the same numbers to rounding.
begin "$dir/moved"
kill -USR1 "$(cat "$dir/pid.0")"
wait $job
expect 1 0 "" resume "$dir/run.yaml" train.out="$dir/moved"
figures() { # file: step and loss of training lines
  sed -n 's/.*"kind":"train","step":\([0-9]*\),.*"loss":\([0-9.e+-]*\),.*/\1 \2/p' "$1"
}
figures "$dir/whole.2/metrics.jsonl" >"$dir/figures.want"
figures "$dir/moved/metrics.jsonl" | paste - "$dir/figures.want" | awk '
  { n++; e = ($2 - $4) / $4; if ($1 != $3 || e > 2e-4 || e < -2e-4) bad++ }
  END { exit !(n == 22 && bad == 0) }' || complain "2 ranks, then 1: other losses"
exit $failed
