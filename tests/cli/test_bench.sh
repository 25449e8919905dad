#!/bin/sh
# tests/cli/test_bench.sh SHOAL: every section runs for every model and loss, on one rank and on several; mistakes are one
# clear line. Sizes are tiny: nothing here says how fast anything is.
. "$(dirname "$0")/common.sh"
export TMPDIR="$dir"

tiny="model.width=8 model.max_len=12 loss.negatives=4 batch.users=4 eval.users=512 --steps 2"

# A whole report, twice (two numbers of threads), no line beyond 100 columns, nothing left behind.
# shellcheck disable=SC2086 # a list of arguments
says 0 "tokens/s" "$shoal" bench $tiny --threads 1,2 --json "$dir/bench.json"
for words in "matrix product 2048^3, BLIS" "random rows of 256 bytes" "HSTU attention backward" "block.1 hstu_in backward" \
  "gradients of rows to owners" "update of table rows" "whole step" "users/s"; do
  [ "$(grep -cF -- "$words" "$dir/out")" = 2 ] || complain "'$words' does not stand in the report twice"
done
awk 'length > 100 { bad = 1; print "too long: " $0 } END { exit bad }' "$dir/out" || complain "a line is too long"
[ "$(wc -l <"$dir/bench.json")" = 2 ] || complain "the JSON file has not one line a number of threads"
grep -q '"threads":1,.*"peak_gflops":[0-9.]*,.*"tokens_per_s":[0-9.]*,.*"eval_users_per_s":[0-9.]*,"rows":\[{' "$dir/bench.json" ||
  complain "the JSON file lacks figures"
[ -z "$(find "$dir" -name 'shoal-bench-*')" ] || complain "a temporary data set was left behind"

# Every model and loss.
for model in sasrec hstu fuxi-alpha fuxi-beta; do
  # shellcheck disable=SC2086
  says 0 "whole step" "$shoal" bench model.name=$model $tiny --only layers,step
done
for loss in shared in-batch full; do
  # shellcheck disable=SC2086
  says 0 "$loss loss, forward and backward" "$shoal" bench loss.name=$loss batch.accumulate=2 $tiny --only layers,step
done

# A file of shapes: its settings, the command line's over them, a summary; two runs side by side.
mkdir "$dir/recipes"
printf 'model:\n  name: sasrec\n  layers: 3\n' >"$dir/recipes/base.yaml"
cat >"$dir/recipes/shapes.txt" <<'EOF'
# name, settings
long  model.max_len=40 bench.length=40 bench.items=300 bench.users=9 bench.steps=2   # each history 40 inputs

small-1.x base=base.yaml loss.name=full
EOF
# shellcheck disable=SC2086
says 0 "small-1.x" "$shoal" bench --shapes "$dir/recipes/shapes.txt" $tiny model.max_len=50 --json "$dir/shapes.json"
grep -qE '^long +[0-9]+ +160 ' "$dir/out" || complain "four users of 40 inputs are not 160 tokens a step"
for words in "9 sequences, 360 tokens an epoch, 300 candidates" "every history 40 inputs long" "model   sasrec: 3 layers"; do
  grep -qF "$words" "$dir/out" || complain "'$words' does not stand in the report of shapes"
done
sed 's/"seconds":[0-9.e-]*/"seconds":0.5/; s/whole step/old step/' "$dir/bench.json" >"$dir/old.json"
says 0 "old step" "$shoal" bench --compare "$dir/old.json" "$dir/bench.json"
for words in "peak of this machine, GFLOP/s" "triad of this machine" " only old" " only new"; do
  [ "$(grep -cF "$words" "$dir/out")" = 2 ] || complain "'$words' does not stand in the comparison twice"
done
grep -qE '^  machine  matrix product 2048\^3, BLIS +500\.000 +[0-9.]+ +[0-9.]+x$' "$dir/out" || complain "no time beside the old one"
says 0 "only in $dir/shapes.json" "$shoal" bench --compare "$dir/bench.json" "$dir/shapes.json"
says 2 "found 1 file, expected two" "$shoal" bench --compare "$dir/old.json"
says 2 "none.json: cannot be read" "$shoal" bench --compare "$dir/old.json" "$dir/none.json"
head -c 200 "$dir/bench.json" >"$dir/cut.json"
says 3 "cut.json: line 1: this is no JSON" "$shoal" bench --compare "$dir/cut.json" "$dir/bench.json"
(cat "$dir/bench.json" && echo '{"threads":1,"rows":[{"section":"step","name":"whole step","seconds":"long"}]}') >"$dir/odd.json"
says 3 "odd.json: line 3: these are no figures" "$shoal" bench --compare "$dir/bench.json" "$dir/odd.json"
: >"$dir/empty.json"
says 3 "empty.json: is empty" "$shoal" bench --compare "$dir/empty.json" "$dir/bench.json"
bad_shape() { # text line
  printf '# \n%s\n' "$2" >"$dir/bad.txt"
  says 2 "bad.txt:2: $1" "$shoal" bench --shapes "$dir/bad.txt"
}
bad_shape "command line: unknown key model.widht" "a model.widht=8"
bad_shape "found 'bench.lenght=8'" "a bench.lenght=8"
bad_shape "found 'model.width=8', expected a name" "model.width=8"
says 2 "a second shape is called 'a'" sh -c "printf 'a\na\n' >'$dir/two.txt'; '$shoal' bench --shapes '$dir/two.txt'"
says 2 "bench.length = 300 is beyond model.max_len = 200" "$shoal" bench bench.length=300

# Counted operations: without layers only the loss is left, 3 x 2 (1 + R) D a token; full softmax 8 V D, on any ranks.
counts() { # flops-a-token ranks settings...
  want=$1 n=$2
  shift 2
  # shellcheck disable=SC2086
  says 0 "MFU" sh "$cli/../mpirun.sh" "$n" "$shoal" bench $tiny --only step --json "$dir/count.json" model.layers=0 "$@"
  grep -q "\"flops_per_token\":$want,\"mfu\":[0-9.e-]*," "$dir/count.json" || complain "$n ranks, $*: not $want operations a token"
}
counts 240 1 loss.negatives=4
counts 240 2 loss.negatives=4
counts 19200 1 loss.name=full bench.items=300 bench.length=12
counts 19200 2 loss.name=full bench.items=300 bench.length=12

# A data set that exists is used, unless told otherwise.
says 0 "written to" "$shoal" synth "$dir/toy.h5" --preset toy
# shellcheck disable=SC2086
says 0 "data    $dir/toy.h5" "$shoal" bench data.path="$dir/toy.h5" $tiny --only step
# shellcheck disable=SC2086
says 0 "data    synthetic" "$shoal" bench data.path="$dir/toy.h5" $tiny --only step --synthetic

for mode in none poll thread; do
  # shellcheck disable=SC2086
  says 0 "overlap, progress $mode" sh "$cli/../mpirun.sh" 3 "$shoal" bench $tiny loss.name=shared --only overlap comm.progress=$mode
done

# Ranks, one of them without a sequence in its batch.
# shellcheck disable=SC2086
says 0 "3 ranks x 1 thread" sh "$cli/../mpirun.sh" 3 "$shoal" bench $tiny batch.users=2 --only kernels,layers,step,eval

says 2 "--only: found 'stepp'" "$shoal" bench --only layers,stepp
says 2 "--threads: found 'x'" "$shoal" bench --threads 1,x
says 2 "nearest is model.width" "$shoal" bench model.widht=8
says 2 "none.yaml" "$shoal" bench "$dir/none.yaml"
says 1 "cannot be written" "$shoal" bench --json "$dir/none/x.json" --only step
printf 'no data set' >"$dir/bad.h5"
says 3 "bad.h5" "$shoal" bench data.path="$dir/bad.h5" --only step
expect 1 2 "--only: found ''" bench --only ""
exit $failed
