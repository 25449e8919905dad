#!/bin/sh
# tests/results.sh [NAME ...]: the runs behind docs/RESULTS.md, as one queue that continues where it stopped.
#
# Needs SHOAL_TEST_DATA (a folder with data/ml-1m and data/amazon-beauty). Every run keeps its folder under
# SHOAL_RESULTS (default run/results); a finished one is left alone, a killed one is resumed from its last checkpoint.
# SHOAL_RANKS ranks of OMP_NUM_THREADS threads each (default 1 rank, all cores). Ends with a table of all finished runs.
set -eu
cd "$(dirname "$0")/.."
shoal=${SHOAL:-build/release/bin/shoal}
out=${SHOAL_RESULTS:-run/results}
: "${SHOAL_TEST_DATA:?names a folder with data/ml-1m and data/amazon-beauty}"
mkdir -p "$out"

ml=$SHOAL_TEST_DATA/data/ml-1m
prepare() { # FILE ARGUMENTS...
  file=$1
  shift
  [ -f "$out/$file" ] || "$shoal" prepare --out "$out/$file" "$@"
}
prepare ml-1m-file.h5 --format movielens "$ml/ratings.dat.gz" --items "$ml/movies.dat" --ties file
prepare ml-1m-shuffle.h5 --format movielens "$ml/ratings.dat.gz" --items "$ml/movies.dat" --ties shuffle --seed 1
prepare beauty.h5 --format sequences "$SHOAL_TEST_DATA/data/amazon-beauty/Beauty.txt.gz"

# name | configuration | data set | further settings
queue() {
  cat <<'RUNS'
hstu-file|ml-1m/hstu|ml-1m-file|
hstu-shuffle|ml-1m/hstu|ml-1m-shuffle|
sasrec-shuffle|ml-1m/sasrec|ml-1m-shuffle|
fuxi-alpha-shuffle|ml-1m/fuxi-alpha|ml-1m-shuffle|train.eval_every=3
hstu-large-shuffle|ml-1m/hstu-large|ml-1m-shuffle|train.eval_every=4
hstu-two-out|ml-1m/hstu|ml-1m-shuffle|data.split=leave-two-out
beauty-sasrec-full|amazon-beauty/sasrec-full|beauty|
fuxi-alpha-shuffle-s1|ml-1m/fuxi-alpha|ml-1m-shuffle|train.eval_every=3 train.seed=1
hstu-file-s2|ml-1m/hstu|ml-1m-file|train.seed=2
hstu-full|ml-1m/hstu|ml-1m-shuffle|loss.name=full train.eval_every=2 train.epochs=40
hstu-shuffle-bf16|ml-1m/hstu|ml-1m-shuffle|train.precision=bf16
sasrec-shuffle-bf16|ml-1m/sasrec|ml-1m-shuffle|train.precision=bf16
hstu-shuffle-s1|ml-1m/hstu|ml-1m-shuffle|train.seed=1
hstu-shuffle-s2|ml-1m/hstu|ml-1m-shuffle|train.seed=2
sasrec-shuffle-s1|ml-1m/sasrec|ml-1m-shuffle|train.seed=1
sasrec-shuffle-s2|ml-1m/sasrec|ml-1m-shuffle|train.seed=2
fuxi-alpha-shuffle-s2|ml-1m/fuxi-alpha|ml-1m-shuffle|train.eval_every=3 train.seed=2
hstu-large-shuffle-s1|ml-1m/hstu-large|ml-1m-shuffle|train.eval_every=4 train.seed=1
hstu-large-shuffle-s2|ml-1m/hstu-large|ml-1m-shuffle|train.eval_every=4 train.seed=2
fuxi-beta-shuffle|ml-1m/fuxi-beta|ml-1m-shuffle|train.eval_every=3
fuxi-beta-shuffle-s1|ml-1m/fuxi-beta|ml-1m-shuffle|train.eval_every=3 train.seed=1
fuxi-beta-shuffle-s2|ml-1m/fuxi-beta|ml-1m-shuffle|train.eval_every=3 train.seed=2
fuxi-alpha-large-shuffle|ml-1m/fuxi-alpha-large|ml-1m-shuffle|train.eval_every=4
fuxi-beta-large-shuffle|ml-1m/fuxi-beta-large|ml-1m-shuffle|train.eval_every=4
hstu-large-shuffle-bf16|ml-1m/hstu-large|ml-1m-shuffle|train.eval_every=4 train.precision=bf16
hstu-large-shuffle-bf16-s1|ml-1m/hstu-large|ml-1m-shuffle|train.eval_every=4 train.precision=bf16 train.seed=1
hstu-large-shuffle-bf16-s2|ml-1m/hstu-large|ml-1m-shuffle|train.eval_every=4 train.precision=bf16 train.seed=2
fuxi-alpha-shuffle-bf16|ml-1m/fuxi-alpha|ml-1m-shuffle|train.eval_every=3 train.precision=bf16
fuxi-beta-shuffle-bf16|ml-1m/fuxi-beta|ml-1m-shuffle|train.eval_every=3 train.precision=bf16
fuxi-alpha-large-shuffle-s1|ml-1m/fuxi-alpha-large|ml-1m-shuffle|train.eval_every=4 train.seed=1
fuxi-alpha-large-shuffle-s2|ml-1m/fuxi-alpha-large|ml-1m-shuffle|train.eval_every=4 train.seed=2
fuxi-beta-large-shuffle-s1|ml-1m/fuxi-beta-large|ml-1m-shuffle|train.eval_every=4 train.seed=1
fuxi-beta-large-shuffle-s2|ml-1m/fuxi-beta-large|ml-1m-shuffle|train.eval_every=4 train.seed=2
RUNS
}

wanted() { # NAME WANTED...
  name=$1
  shift
  [ $# -eq 0 ] && return 0
  for w; do [ "$w" = "$name" ] && return 0; done
  return 1
}

launch() {
  if [ "${SHOAL_RANKS:-1}" -gt 1 ]; then
    tests/mpirun.sh "$SHOAL_RANKS" "$shoal" "$@"
  else
    "$shoal" "$@"
  fi
}

queue | while IFS='|' read -r name config data settings; do
  wanted "$name" "$@" || continue
  run=$out/$name
  [ -f "$run/finished" ] && continue
  echo "== $name"
  # shellcheck disable=SC2086 # settings are words
  launch train "configs/$config.yaml" "data.path=$out/$data.h5" "train.out=$run" $settings --resume </dev/null
  touch "$run/finished"
done

# Best and last test evaluation of every finished run.
for run in "$out"/*/; do
  [ -f "$run/finished" ] || continue
  name=$(basename "$run")
  grep '"kind":"eval","split":"test"' "$run/metrics.jsonl" | awk -v name="$name" '
    function get(key,  at) { at = index($0, "\"" key "\":"); return substr($0, at + length(key) + 3) + 0 }
    { hr = get("hr@10"); nd = get("ndcg@10"); mrr = get("mrr"); epoch = get("epoch")
      if (nd > best) { best = nd; line = sprintf("%.4f / %.4f / %.4f at epoch %d", hr, nd, mrr, epoch) }
      last = sprintf("%.4f / %.4f / %.4f at epoch %d", hr, nd, mrr, epoch) }
    END { printf "%-22s HR@10 / NDCG@10 / MRR  best %s  last %s\n", name, line, last }'
done
