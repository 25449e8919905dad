#!/bin/sh
# tests/cli/test_check.sh SHOAL: with comm.check a program whose ranks call different collectives ends with a message that
# names both, in seconds; test_check.c has the wrong programs. And a run with it on is an ordinary run.
. "$(dirname "$0")/common.sh"
SHOAL_MPI_TIMEOUT=20 # 124: it hung
wrong=$(dirname "$shoal")/../tests/test_check
[ -x "$wrong" ] || { echo "$wrong was not built" && exit 77; }

# ranks number words...: all on the one line
try() {
  n=$1 number=$2
  shift 2
  run "$n" "$wrong" "$number"
  ended_with 1 || complain "$n ranks, program $number: exit code $code, expected 1"
  [ "$(grep -c "^shoal: rank .*: comm.check: rank .* calls .*, but rank $((n - 1)) calls " "$dir/err")" -ge 1 ] ||
    complain "$n ranks, program $number: no message"
  for word; do
    grep 'comm.check' "$dir/err" | grep -qF -- "$word" || complain "$n ranks, program $number: '$word' is not said"
  done
}
line() { echo "tests/mpi/test_check.c:$(grep -n "$1" "$cli/../mpi/test_check.c" | head -n 1 | cut -d: -f1)"; }

for n in 2 3; do
  last=$((n - 1))
  try $n 0 "rank 0 calls sh_sum_f32 over world at $(line 'if (!odd) sh_sum')" \
    "rank $last calls sh_barrier over world at $(line 'if (odd) sh_barrier')"
  try $n 1 "(control; 64, 4)" "(control; 63, 4)"
  try $n 2 "$(line 'if (odd) sh_sum')"
  try $n 3 "rank 0 calls sh_sum_f32 over world" "rank $last calls sh_sum_f32 over tensor"
  try $n 4 "rank 0 calls sh_sum_f32" "rank $last calls sh_grid_destroy"
  try $n 5 "(control; 256, 0)" "(control; 256, 1)"
  try $n 6 "the first sends 1 and expects 1, the second expects 1 and sends 2"
  try $n 7 "(rows; 64, 4)" "(loss; 64, 4)"
  try $n 8 "rank 0 calls sh_reduce_scatter_f32_begin" "rank $last calls sh_sum_f32_begin"
  try $n 9 "sh_allgatherv over world"
  run $n "$wrong" 99
  [ $code = 0 ] || complain "$n ranks: the right program failed"
done

"$shoal" synth "$dir/data.h5" --preset toy --users 100 >/dev/null || exit 1
for n in 1 2 3; do
  expect $n 0 "" train data.path="$dir/data.h5" train.out="$dir/run.$n" train.steps=4 model.width=16 model.heads=2 comm.check=true
  expect $n 0 "" eval "$dir/run.$n/ckpt/latest.h5" comm.check=true
  expect $n 0 "" recommend "$dir/run.$n/ckpt/latest.h5" --out "$dir/top.tsv"
done
exit $failed
