#!/bin/sh
# tests/cli/test_eval_recommend.sh SHOAL: evaluation and recommendation give the same on any number of ranks, and
# recommendations carry the keys of the raw data.
. "$(dirname "$0")/common.sh"

# 90 users who walk through 40 items in steps of 1 or 3; keys are words. One user has a single event.
awk 'BEGIN {
  print "user,item,time"
  for (u = 0; u < 90; u++) {
    at = u * 7 % 40
    for (e = 0; e < 6 + u % 20; e++) {
      printf "Benutzer-%02d,Stück %d,%d\n", u, at, 1000000 + 5000 * e + u
      at = (at + (u % 2 ? 1 : 3)) % 40
    }
  }
  print "einsam,Stück 5,1000000"
}' >"$dir/log.csv"
"$shoal" prepare --format csv "$dir/log.csv" -o "$dir/data.h5" >/dev/null || exit 1
recipe "$dir/run.yaml" data.split=leave-two-out model.width=24 model.max_len=12 batch.users=16 optim.lr=0.005 \
  train.epochs=6 train.out="$dir/run" eval.users=16
expect 2 0 "" train "$dir/run.yaml"
checkpoint=$dir/run/ckpt/latest.h5

# ranks arguments...: metrics and recommendations, under a name for the number of ranks.
results() {
  n=$1
  shift
  expect "$n" 0 "" eval "$checkpoint" --json "$dir/json.$n" "$@"
  expect "$n" 0 "" recommend "$checkpoint" --top 7 --out "$dir/top.$n" "$@"
}
for filter in none window seen; do
  results 1 eval.filter=$filter
  for n in 2 3 5; do
    [ $n = 3 ] || [ $filter = seen ] || continue
    results $n eval.filter=$filter
    cmp -s "$dir/json.1" "$dir/json.$n" || complain "filter $filter: other metrics on $n ranks than on one"
    cmp -s "$dir/top.1" "$dir/top.$n" || complain "filter $filter: other recommendations on $n ranks than on one"
  done
  cp "$dir/top.1" "$dir/top.$filter"
done

# What is read is not written over; a smaller top has no figures beyond it; the optimum is of the last event only.
cp "$checkpoint" "$dir/ck.h5"
ln -s ck.h5 "$dir/link.h5"
for output in ck.h5 link.h5 data.h5; do
  expect 1 2 "expected another file to write" recommend "$dir/ck.h5" --top 3 --out "$dir/$output"
  expect 2 2 "expected another file to write" eval "$dir/ck.h5" --json "$dir/$output"
done
cmp -s "$checkpoint" "$dir/ck.h5" || complain "an input was written over"
expect 1 2 "expected another file to write" prepare --format csv "$dir/log.csv" -o "$dir/log.csv"
mkfifo "$dir/pipe"
cp "$dir/log.csv" "$dir/log.csv.partial"
expect 1 2 "expected another file to write" prepare --format csv "$dir/log.csv.partial" -o "$dir/log.csv"
expect 1 1 "a device or a pipe" prepare --format csv "$dir/log.csv" -o "$dir/pipe"
expect 1 0 "" eval "$checkpoint" --json "$dir/json.top" eval.top=20
grep -q 'hr@10"' "$dir/json.top" && ! grep -q 'hr@50"' "$dir/json.top" && ! grep -q 'HR@50' "$dir/out" ||
  complain "eval.top=20: HR@50 stands there, or HR@10 does not"
"$shoal" synth "$dir/known.h5" --preset toy --users 100 >/dev/null
for split in leave-one-out temporal; do
  expect 1 0 "" train "$dir/run.yaml" data.path="$dir/known.h5" data.split=$split train.out="$dir/known.$split" \
    train.epochs=1
  case $split$(grep -c 'of the best possible' "$dir/out") in leave-one-out1 | temporal0) ;; *)
    complain "$split: the best possible is named, or is not" ;; esac
done

# How many users are scored at a time, and threads, change nothing either.
results 1 eval.users=1
cp "$dir/json.1" "$dir/json.few"
cp "$dir/top.1" "$dir/top.few"
OMP_NUM_THREADS=3 results 1 eval.users=1000
cmp -s "$dir/json.1" "$dir/json.few" || complain "eval.users changes the metrics"
cmp -s "$dir/top.1" "$dir/top.few" || complain "eval.users changes the recommendations"

# The validation is the one that training saw; the test of the best epoch is the one it ended with.
expect 1 0 "" eval "$checkpoint" --split valid --json "$dir/valid"
expect 1 0 "" eval "$dir/run/ckpt/best.h5" --json "$dir/test"
of() { grep -o "\"$1\":[0-9.e-]*" | tail -n 1; }
for metric in mrr hr@10 ndcg@10; do
  [ "$(of $metric <"$dir/valid")" = "$(grep '"valid"' "$dir/run/metrics.jsonl" | of $metric)" ] ||
    complain "eval --split valid: another $metric than training's last"
  [ "$(of $metric <"$dir/test")" = "$(grep '"test"' "$dir/run/metrics.jsonl" | of $metric)" ] ||
    complain "eval of best.h5: another $metric than training's test"
done
grep -q '"users":90,' "$dir/test" || complain "eval: not 90 users with an event to rank"

# Recommendations: keys as in the log, every user, ranks 1 to 7, scores that do not rise, nothing filtered.
awk -F '\t' -v log_csv="$dir/log.csv" '
  BEGIN {
    while ((getline line <log_csv) > 0) {
      split(line, f, ",")
      if (f[1] != "user") { user[f[1]]; item[f[2]]; seen[f[1], f[2]] }
    }
    for (u in user) users++
  }
  NF != 4 { print "line " NR ": " NF " columns"; bad = 1 }
  !($1 in user) || !($3 in item) { print "line " NR ": unknown keys " $1 ", " $3; bad = 1 }
  ($1, $3) in seen { print "line " NR ": " $1 " has seen " $3; bad = 1 }
  ($1, $3) in given { print "line " NR ": " $3 " twice"; bad = 1 }
  { given[$1, $3] }
  $1 != last { if (NR > 1 && rank != 7) { print last ": " rank " items"; bad = 1 } rank = 0; score = 1e9; n++ }
  { last = $1; if ($2 != ++rank || $4 > score) { print "line " NR ": out of order"; bad = 1 } score = $4 }
  END { if (n != users) { print n " users, expected " users; bad = 1 } exit bad }' "$dir/top.seen" >"$dir/out" ||
  complain "recommend"
# More than there is: what is left after the filter.
expect 1 0 "" recommend "$checkpoint" --top 100 eval.filter=seen
[ "$(grep -c '^einsam' "$dir/out")" = 39 ] || complain "recommend --top 100: not the 39 items left for the user of one event"
expect 3 0 "" recommend "$checkpoint" --top 100 eval.filter=none
[ "$(wc -l <"$dir/out")" = $((91 * 40)) ] || complain "recommend --top 100: not every item for every user"
exit $failed
