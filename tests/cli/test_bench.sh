#!/bin/sh
# tests/cli/test_bench.sh SHOAL: every section runs for every model and loss, on one rank and on several; mistakes are one
# clear line. Sizes are tiny: nothing here says how fast anything is.
set -u
shoal=$1
here=$(dirname "$0")
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export TMPDIR="$dir" OMP_NUM_THREADS=1
bad=0
expect() { # code text command...
  code=$1 text=$2
  shift 2
  "$@" >"$dir/out" 2>&1
  got=$?
  if [ $got != "$code" ] || ! grep -qF -- "$text" "$dir/out"; then
    echo "expected exit $code and '$text', got $got:" "$@"
    sed 's/^/  /' "$dir/out"
    bad=1
  fi
}
complain() {
  echo "$*"
  bad=1
}
tiny="model.width=8 model.max_len=12 loss.negatives=4 batch.users=4 eval.users=512 --steps 2"

# A whole report, twice (two numbers of threads), no line beyond 100 columns, nothing left behind.
# shellcheck disable=SC2086 # a list of arguments
expect 0 "tokens/s" "$shoal" bench $tiny --threads 1,2 --json "$dir/bench.json"
for words in "matrix product 2048^3, BLIS" "random rows of 256 bytes" "HSTU attention backward" "block.1 hstu_in backward" \
  "gradients of rows to owners" "update of table rows" "whole step" "users/s"; do
  [ "$(grep -cF -- "$words" "$dir/out")" = 2 ] || complain "'$words' does not stand in the report twice"
done
awk 'length > 100 { bad = 1; print "too long: " $0 } END { exit bad }' "$dir/out" || bad=1
[ "$(wc -l <"$dir/bench.json")" = 2 ] || complain "the JSON file has not one line a number of threads"
grep -q '"threads":1,.*"peak_gflops":[0-9.]*,.*"tokens_per_s":[0-9.]*,.*"eval_users_per_s":[0-9.]*,"rows":\[{' "$dir/bench.json" ||
  complain "the JSON file lacks figures"
[ -z "$(find "$dir" -name 'shoal-bench-*')" ] || complain "a temporary data set was left behind"

# Every model and loss.
for model in sasrec hstu fuxi-alpha fuxi-beta; do
  # shellcheck disable=SC2086
  expect 0 "whole step" "$shoal" bench model.name=$model $tiny --only layers,step
done
for loss in shared in-batch full; do
  # shellcheck disable=SC2086
  expect 0 "$loss loss, forward and backward" "$shoal" bench loss.name=$loss batch.accumulate=2 $tiny --only layers,step
done

# A data set that exists is used, unless told otherwise.
expect 0 "written to" "$shoal" synth "$dir/toy.h5" --preset toy
# shellcheck disable=SC2086
expect 0 "data    $dir/toy.h5" "$shoal" bench data.path="$dir/toy.h5" $tiny --only step
# shellcheck disable=SC2086
expect 0 "data    synthetic" "$shoal" bench data.path="$dir/toy.h5" $tiny --only step --synthetic

# Ranks, one of them without a sequence in its batch.
# shellcheck disable=SC2086
expect 0 "3 ranks x 1 thread" sh "$here/../mpirun.sh" 3 "$shoal" bench $tiny batch.users=2 --only kernels,layers,step,eval

expect 2 "--only: found 'stepp'" "$shoal" bench --only layers,stepp
expect 2 "--threads: found 'x'" "$shoal" bench --threads 1,x
expect 2 "nearest is model.width" "$shoal" bench model.widht=8
expect 2 "none.yaml" "$shoal" bench "$dir/none.yaml"
expect 1 "cannot be written" "$shoal" bench --json "$dir/none/x.json" --only step
printf 'no data set' >"$dir/bad.h5"
expect 3 "bad.h5" "$shoal" bench data.path="$dir/bad.h5" --only step
exit $bad
