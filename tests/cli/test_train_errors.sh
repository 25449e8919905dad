#!/bin/sh
# tests/cli/test_train_errors.sh SHOAL: what is wrong is said once, in one line, with the exit code for it, on any number of
# ranks; and what was on disk stays whole.
. "$(dirname "$0")/common.sh"

"$shoal" synth "$dir/data.h5" --preset toy --users 100 >/dev/null || exit 1
recipe "$dir/good.yaml" model.heads=2 batch.users=32 train.epochs=2 train.out="$dir/run"
expect 2 0 "" train "$dir/good.yaml"
sum() { cksum <"$dir/run/ckpt/latest.h5"; }
before=$(sum)

checkpoint=$dir/run/ckpt/latest.h5
bytes=$(wc -c <"$checkpoint")
head -c $((bytes / 2)) "$checkpoint" >"$dir/half.h5"
head -c $((bytes - 1)) "$checkpoint" >"$dir/short.h5"
: >"$dir/empty.h5"
cp "$checkpoint" "$dir/flipped.h5"
offset=$(LC_ALL=C grep -abo 'max_len: 20' "$checkpoint" | head -n 1 | cut -d: -f1) # inside the stored configuration
printf 'X' | dd of="$dir/flipped.h5" bs=1 seek="$offset" conv=notrunc 2>/dev/null
head -c $(($(wc -c <"$dir/data.h5") * 2 / 3)) "$dir/data.h5" >"$dir/half-data.h5"
head -c 100000 /dev/zero >"$dir/zeros.h5"
printf 'model:\n  layers: 2\n  layrs: 3\n' >"$dir/typo.yaml"
printf 'model:\n  layers: two\n' >"$dir/type.yaml"
printf 'model: [1, 2\n' >"$dir/broken.yaml"

# Said before any rank could differ: one rank is enough.
one() { expect 1 "$@"; }
one 2 "none.yaml" train "$dir/none.yaml"
one 2 "typo.yaml:3: unknown key model.layrs; nearest is model.layers" train "$dir/typo.yaml"
one 2 "type.yaml:2" train "$dir/type.yaml"
one 2 "broken.yaml" train "$dir/broken.yaml"
one 2 "a configuration file is missing" train
one 2 "unknown option --resum; nearest is --resume" train "$dir/good.yaml" --resum
one 2 "found 'steps=5-3', expected steps=A-B" train "$dir/good.yaml" --trace steps=5-3
one 2 "expected steps=A-B" train "$dir/good.yaml" --trace 5-7
one 2 "--trace-file needs --trace" train "$dir/good.yaml" --trace-file x
one 2 "batch.users" train "$dir/good.yaml" batch.users=many
one 2 "nearest is hstu" train "$dir/good.yaml" model.name=hsut
one 2 "model.width = 17 is not a multiple of model.heads = 2" train "$dir/good.yaml" model.width=17
for file in good.yaml zeros.h5 run/ckpt/latest.h5; do one 3 "$file" train "$dir/good.yaml" data.path="$dir/$file"; done
for file in short.h5 empty.h5 good.yaml; do one 3 "$file" train "$dir/good.yaml" --resume-from "$dir/$file"; done
for command in eval recommend; do
  one 3 "half.h5" $command "$dir/half.h5"
  one 3 "data.h5" $command "$dir/data.h5"
  one 2 "nearest is eval.filter" $command "$checkpoint" eval.filtre=none
done
for command in inspect verify; do
  for file in half short flipped zeros half-data; do one 3 "$file.h5" $command "$dir/$file.h5"; done
done

for n in 1 2; do
  # configuration: 2
  good="train $dir/good.yaml train.out=$dir/none.$n"
  # shellcheck disable=SC2086 # arguments without blanks
  {
    expect $n 2 "typo.yaml:3: unknown key model.layrs; nearest is model.layers" train "$dir/typo.yaml"
    expect $n 2 "nearest is optim.lr" $good optim.lrr=1
    expect $n 2 "batch.users" $good batch.users=0
    expect $n 2 "loss.sampler = popularity needs loss.name = shared" $good loss.sampler=popularity
    expect $n 2 "data.path" $good data.path=
    expect $n 2 "parallel.tensor is 4, which does not divide the $n rank" $good model.heads=4 parallel.tensor=4
    # data: 3
    expect $n 3 "nowhere.h5" $good data.path="$dir/nowhere.h5"
    expect $n 3 "half-data.h5" $good data.path="$dir/half-data.h5"
    expect $n 3 "no user has enough events" $good data.min_history=1000 model.max_len=1000
    # checkpoints: 3
    expect $n 3 "there is no such checkpoint" $good --resume-from "$dir/nowhere.h5"
    for file in half flipped data; do expect $n 3 "$file.h5" $good --resume-from "$dir/$file.h5"; done
    expect $n 3 "model.layers" $good --resume-from "$checkpoint" model.layers=3
    expect $n 2 "table.optim was adam_dense" $good --resume-from "$checkpoint" table.optim=adagrad
  }
  expect $n 3 "flipped.h5" eval "$dir/flipped.h5"
  expect $n 3 "nowhere.h5" recommend "$checkpoint" data.path="$dir/nowhere.h5"
  expect $n 3 "model.layers" eval "$checkpoint" model.layers=3
  expect $n 2 "has no validation" eval "$checkpoint" --split valid
  expect $n 1 "no-folder" recommend "$checkpoint" --out "$dir/no-folder/x.tsv"
  # divergence: 4. A decay of 1 at this rate multiplies everything by -999 in each step.
  expect $n 4 "beyond train.loss_limit" resume "$dir/good.yaml" train.epochs=4 train.loss_limit=1e-3
  expect $n 4 "nan" resume "$dir/good.yaml" train.epochs=30 optim.lr=1000 optim.weight_decay=1 loss.l2_norm=false \
    checkpoint.every_epochs=0 train.eval_every=0
  # What was there: the same.
  [ "$(sum)" = "$before" ] || complain "$n ranks: a run that failed changed the newest checkpoint"
  [ ! -e "$dir/none.$n" ] || complain "$n ranks: a run that never began left a folder"
  whole "$dir/run" "$n ranks: after runs that failed"
done
expect 2 0 "" resume "$dir/good.yaml" train.epochs=3
exit $failed
