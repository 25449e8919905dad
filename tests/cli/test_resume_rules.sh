#!/bin/sh
# tests/cli/test_resume_rules.sh SHOAL: what a resume may change and what it may not; folders of earlier and of running runs.
. "$(dirname "$0")/common.sh"

# Two data sets with the same lines in another order (rows of string keys go by first appearance), one with other items.
awk 'BEGIN { for (u = 1; u <= 60; u++) { line = "u" u; for (k = 0; k < 8; k++) line = line " it" (u * 7 + k * k) % 40
                                         print line } }' >"$dir/a.txt"
sort -r "$dir/a.txt" >"$dir/b.txt"
sed 's/ it/ zz/g' "$dir/a.txt" >"$dir/c.txt"
{ cat "$dir/a.txt"; echo "more it7 it8 it11 it7 it8 it11"; } >"$dir/d.txt" # the same items in the same order
for d in a b c d; do "$shoal" prepare --format sequences "$dir/$d.txt" --out "$dir/$d.h5" >/dev/null || exit 1; done
set -- data.path="$dir/a.h5" model.width=8 model.layers=1 model.max_len=20 loss.negatives=8 batch.users=16 train.log_every=4

# Inside an epoch the batches must stay; between epochs they may change.
for ranks in 1 2; do
  rm -rf "$dir/run"
  expect $ranks 0 "" train "$@" train.out="$dir/run" train.steps=3
  for change in batch.users=9 batch.tokens=50 train.seed=7 data.window=all; do
    key=${change%=*}
    expect $ranks 2 "$key cannot change there" resume "$@" train.out="$dir/run" train.steps=9 $change
  done
  expect $ranks 2 "the data set, or how data.* cuts it, cannot change there" resume "$@" train.out="$dir/run" \
    train.steps=9 data.path="$dir/d.h5"
  expect $ranks 2 "table.optim was adam_dense" resume "$@" train.out="$dir/run" train.steps=9 table.optim=sgd
  expect $ranks 0 "" resume "$@" train.out="$dir/run" train.steps=8 optim.lr=1e-4
  expect $ranks 0 "" resume "$@" train.out="$dir/run" train.steps=12 batch.users=30
done

# The same number of other items, or the same in another order, is another data set.
for d in b c; do
  for command in eval recommend; do
    expect 2 3 "other keys, or in another order" $command "$dir/run/ckpt/latest.h5" data.path="$dir/$d.h5"
  done
  expect 1 3 "other keys, or in another order" resume "$@" train.out="$dir/run" train.steps=16 data.path="$dir/$d.h5"
done
cp "$dir/a.h5" "$dir/moved.h5"
expect 1 0 "" eval "$dir/run/ckpt/latest.h5" data.path="$dir/moved.h5"

# What changes training samples only keeps the best so far.
expect 1 0 "" train "$@" train.out="$dir/kept" train.epochs=2
expect 1 0 "" resume "$@" train.out="$dir/kept" train.epochs=3 data.min_history=3
grep -q "is forgotten" "$dir/out" && complain "data.min_history made a run forget its best"

# Another yardstick forgets the best so far; a branch into another folder keeps its own.
expect 1 0 "" train "$@" train.out="$dir/best" train.epochs=2 eval.metric=hr@200 --trace steps=1
expect 1 0 "" resume "$@" train.out="$dir/best" train.epochs=4 eval.metric=ndcg@10 train.patience=1
grep -q "another yardstick: the best hr@200 so far" "$dir/out" || complain "nothing says that the best is forgotten"
expect 1 0 "" train "$@" train.out="$dir/branch" train.epochs=3 data.split=leave-two-out \
  --resume-from "$dir/best/ckpt/latest.h5"

# A fresh start keeps what an earlier run left; a resume without latest.h5 does not start over silently.
expect 1 0 "" train "$@" train.out="$dir/best" train.epochs=1
[ -f "$dir/best/ckpt.old-1/latest.h5" ] && [ -f "$dir/best/config.yaml.old-1" ] || complain "the earlier run is gone"
[ -f "$dir/best/trace.json.old-1" ] && [ ! -f "$dir/best/trace.json" ] || complain "the earlier run's trace passes for this one's"
rm "$dir/best/ckpt/latest.h5"
expect 2 3 "name a checkpoint with --resume-from" resume "$@" train.out="$dir/best" train.epochs=2

# One run at a time in a folder.
"$shoal" train "$@" train.out="$dir/busy" train.epochs=100000 >"$dir/busy.out" 2>&1 &
first=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  grep -qs "^epoch" "$dir/busy.out" && break
  sleep 1
done
expect 1 2 "in use by another run" train "$@" train.out="$dir/busy"
kill -TERM $first
wait $first
[ $? = 75 ] || complain "the first run did not stop with 75"

expect 1 2 "optim.warmup" train "$@" train.out="$dir/warm" train.epochs=2 optim.warmup=1000000
expect 1 0 "" train "$@" train.out="$dir/zero" train.epochs=1 optim.lr=0 table.lr=0.001 optim.schedule=linear
expect 1 0 "" train "$@" train.out="$dir/every" train.epochs=3 checkpoint.every=4 checkpoint.every_epochs=0 \
  checkpoint.best=false checkpoint.keep=9
[ "$(ls "$dir/every/ckpt" | grep -c '^step')" = 3 ] || complain "checkpoint.every at the end of an epoch was skipped"
exit $failed
