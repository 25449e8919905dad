#!/bin/sh
# tests/cli/test_train_tensor.sh SHOAL: parallel.tensor as a user meets it: a run whose ranks share layers, its checkpoint
# on other grids, and what cannot be dealt.
. "$(dirname "$0")/common.sh"

"$shoal" synth "$dir/data.h5" --preset toy --users 600 --items 100 >/dev/null || exit 1
recipe "$dir/run.yaml" model.width=24 model.layers=2 model.heads=4 batch.users=64 train.epochs=2 train.out="$dir/run"

# the last evaluation of a run folder: what a user compares
figures() { grep '"kind":"eval"' "$1/metrics.jsonl" | tail -n 1 | sed -E 's/.*"hr@10":([0-9.]*),.*/\1/'; }

expect 1 0 "" train "$dir/run.yaml" train.out="$dir/one"
expect 4 0 "" train "$dir/run.yaml" train.out="$dir/shared" parallel.tensor=2
grep -q 'data 2, tensor 2' "$dir/out" || complain "the grid is not in the output"
grep -q 'layers shared by ranks 0-1, 2-3$' "$dir/out" || complain "who shares layers is not in the output"
expect 3 0 "" train "$dir/run.yaml" train.out="$dir/whole" parallel.tensor=3 parallel.sequence=false model.heads=3
awk -v a="$(figures "$dir/one")" -v b="$(figures "$dir/shared")" \
  'BEGIN { d = a - b; exit !(a > 0 && d < .005 && d > -.005) }' || complain "HR@10 $(figures "$dir/one") on one rank, $(figures "$dir/shared") shared"
whole "$dir/shared" "shared layers"

# ranks 0-2 on one host, rank 3 on another: two hosts' names in a machine that lets one have them
if unshare -r --uts true 2>/dev/null; then
  cat >"$dir/hosts.sh" <<'END'
exec unshare -r --uts sh -c 'hostname "n$((${OMPI_COMM_WORLD_RANK:-$PMI_RANK} / 3))"; exec "$0" "$@"' "$@"
END
  run 4 sh "$dir/hosts.sh" "$shoal" train "$dir/run.yaml" train.out="$dir/astride" train.steps=1 parallel.tensor=2
  [ $code = 0 ] && [ "$(grep -c '^shoal: ' "$dir/err")" = 1 ] &&
    grep -q 'warning: 1 of 2 groups of parallel.tensor = 2 ranks, the first of ranks 2-3 (n0 ... n1), lie on more' "$dir/err" ||
    complain "no warning, or not one, of a group on two hosts"
fi

# as many layers as there may be
expect 2 0 "" train "$dir/run.yaml" train.out="$dir/deep" model.layers=512 model.width=4 train.steps=1 parallel.tensor=2

# its checkpoint on other grids
expect 1 0 "" eval "$dir/shared/ckpt/latest.h5"
grep 'HR@' "$dir/out" >"$dir/want"
expect 4 0 "" eval "$dir/shared/ckpt/latest.h5" parallel.tensor=4
grep 'HR@' "$dir/out" | cmp -s - "$dir/want" || complain "evaluation on four ranks that share layers differs from one rank"
expect 2 0 "" recommend "$dir/shared/ckpt/latest.h5" --top 3 --out "$dir/top.tsv" parallel.tensor=2
expect 1 0 "" recommend "$dir/shared/ckpt/latest.h5" --top 3 --out "$dir/top1.tsv"
cut -f1-3 "$dir/top.tsv" >"$dir/top.ids"
cut -f1-3 "$dir/top1.tsv" | cmp -s - "$dir/top.ids" || complain "recommendations of two ranks that share layers differ from one rank's"
expect 2 0 "" train "$dir/run.yaml" train.out="$dir/shared" train.epochs=3 --resume
expect 2 0 "" train "$dir/run.yaml" train.out="$dir/one" train.epochs=3 parallel.tensor=2 --resume

# what cannot be dealt
expect 3 2 "parallel.tensor is 2, which does not divide the 3 ranks" train "$dir/run.yaml" parallel.tensor=2
expect 3 2 "model.heads = 4 cannot be dealt to parallel.tensor = 3" train "$dir/run.yaml" parallel.tensor=3
expect 2 2 "cannot be dealt to parallel.tensor = 2" train "$dir/run.yaml" model.name=sasrec model.width=20 model.ffn_multiple=0.35 parallel.tensor=2
exit $failed
