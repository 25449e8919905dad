#!/bin/sh
# tests/cli/test_plan.sh SHOAL: shoal plan measures, reads what it measured, and predicts; mistakes are one clear line.
# Sizes are tiny: nothing here says how good predictions are (docs/SCALING.md does).
. "$(dirname "$0")/common.sh"
export TMPDIR="$dir"

tiny="model.width=8 model.max_len=12 loss.negatives=4 batch.users=8 bench.users=32 bench.steps=2"

# Measured on one rank, then on two, where the link comes in; the first's figures stay.
# shellcheck disable=SC2086 # a list of arguments
{
  run 1 taskset -c 0 "$shoal" plan --measure --threads 1 $tiny
  [ $code = 0 ] && [ ! -s "$dir/err" ] || complain "shoal plan --measure failed"
  mv "$dir/out" "$dir/one.txt"
  expect 2 0 "" plan --measure --threads 1 $tiny --machine "$dir/one.txt"
  mv "$dir/out" "$dir/two.txt"
}
positive() { # key file
  awk -v key="$1" '$1 == key && $3 > 0 { found = 1 } END { exit !found }' "$2" || complain "$1 is not above 0 in $2"
}
[ "$(grep '^machine.cores' "$dir/one.txt")" = "$(grep '^machine.cores' "$dir/two.txt")" ] ||
  complain "the cores of the node depend on the rank's binding"
# shellcheck disable=SC2086
{
  expect 4 0 "" plan --measure --threads 1 $tiny --machine "$dir/one.txt"
  [ "$(grep '^machine.cores' "$dir/out")" = "$(grep '^machine.cores' "$dir/one.txt")" ] ||
    complain "the cores of the node depend on the number of ranks"
  positive default.turns "$dir/out"
  expect 1 0 "data.path = $dir/none.h5, which is not there" plan --measure --threads 1 $tiny data.path="$dir/none.h5"
}
# A data set that is there is what steps are measured on.
"$shoal" synth "$dir/data.h5" --preset toy --users 100 --items 77 >"$dir/out" || exit 1
expect 1 0 "" plan --measure --threads 1 model.width=8 model.max_len=12 loss.negatives=4 batch.users=8 bench.steps=2 \
  data.path="$dir/data.h5"
grep -q '^default.items = 77 ' "$dir/out" || complain "steps were not measured on data.path"
for key in machine.cores machine.gemm_one machine.memory_one default.threads default.backward default.tokens default.rows; do
  positive $key "$dir/one.txt"
done
for key in machine.cores machine.gemm_all machine.memory_all machine.near.latency machine.near.bandwidth default.busy; do
  positive $key "$dir/two.txt"
done
[ "$(grep '^default.backward' "$dir/one.txt")" = "$(grep '^default.backward' "$dir/two.txt")" ] ||
  complain "figures of the first file changed"
[ -z "$(find "$dir" -name 'shoal-bench-*')" ] || complain "a temporary data set was left behind"

# A machine by hand.
cat >"$dir/hand.txt" <<'EOT'
machine.cores = 4 # of a node
machine.memory_one = 1e10
machine.near.latency = 1e-6
machine.near.bandwidth = 1e9
machine.near.cpu = 1e-9
machine.far.latency = 1e-5
machine.far.bandwidth = 1e8
machine.far.cpu = 1e-10
EOT
grep '^default' "$dir/two.txt" >>"$dir/hand.txt"

rows() { # lines of the first table, of each its field $1
  sed '/^$/,$d' "$dir/out" | awk -v field="$1" '$1 + 0 > 0 && $4 == "x" { print $field }'
}
# shellcheck disable=SC2086
plan() { expect 1 0 "" plan $tiny --machine "$dir/hand.txt" "$@"; }
plan --nodes 1,2,8 --ranks-per-node 2
[ "$(rows 2 | tr '\n' ' ')" = "2 4 16 " ] || complain "not the ranks of 1, 2 and 8 nodes of 2 ranks"
before=$(rows 7 | tail -n 1)
awk 'length > 140 { bad = 1 } END { exit bad }' "$dir/out" || complain "a line is too long"
plan --nodes 8 --ranks-per-node 2 machine.far.bandwidth=1e6
awk "BEGIN { exit !($(rows 7) > $before) }" || complain "a slower link does not take longer"
plan --nodes 2 --weak
grep -q '16 users' "$dir/out" || complain "two nodes do not have two batches of 8 with --weak"
sed 's/^default.config.*/default.config = 1/' "$dir/hand.txt" >"$dir/other.txt"

fails() { # words arguments...
  words=$1
  shift
  expect 1 2 "$words" plan "$@"
}
# shellcheck disable=SC2086
{
  fails "machine.cores is missing" $tiny
  fails "other.txt: default was measured with other settings" $tiny --machine "$dir/other.txt"
  fails "no step of sasrec was measured" "$cli/../../configs/ml-1m/sasrec.yaml" --machine "$dir/hand.txt"
  fails "machine.near is missing" $tiny --machine "$dir/one.txt" machine.cores=2 --ranks-per-node 2
  fails "machine.far is missing" $tiny --machine "$dir/two.txt" --nodes 2
  fails "model.heads = 1 cannot be dealt to parallel.tensor = 3" $tiny --machine "$dir/hand.txt" --nodes 3 parallel.tensor=3
}
fails "nearest is far.bandwidth" machine.far.bandwith=1
fails "found 'machine.cores=many'" machine.cores=many
fails "--nodes: found 'x'" --nodes 1,x
fails "none.txt: cannot be read" --machine "$dir/none.txt"
printf 'machine.cores = 2\nhstu.tokens = 5\n' >"$dir/bad.txt"
fails "bad.txt:2: tokens: found 1 value, expected 2" --machine "$dir/bad.txt"
exit $failed
