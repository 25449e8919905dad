#!/bin/sh
# tests/peers/compare.sh [-n TIMES] [-m MODEL] [-t THREADS] [-d DATA.h5] [-s STEPS] [-b SHOAL] [-c]: training speed of shoal and
# of the PyTorch peer program on the same work, run alternately; prints each run, the medians, and their ratio.
#
# MODEL is the name of a recipe: configs/ml-1m/MODEL.yaml (hstu). Without DATA.h5 both make sequences of MovieLens-1M's
# lengths. -c: the peer under torch.compile (PyTorch 2). Nothing else may run meanwhile: two OpenMP threads on a busy second core lose up to ten times their speed.
# PYTHON names a python3 with PyTorch; default: the first of python3, /usr/bin/python3 that has it.
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
times=3 model=hstu threads=1 data='' steps='' compile='' shoal=$root/build/release/bin/shoal
while getopts n:m:t:d:s:b:c option; do
  case $option in
  n) times=$OPTARG ;;
  m) model=$OPTARG ;;
  t) threads=$OPTARG ;;
  d) data=$OPTARG ;;
  s) steps=$OPTARG ;;
  b) shoal=$OPTARG ;;
  c) compile=--compile ;;
  *) sed -n '2,3s/^# //p' "$0" >&2 && exit 2 ;;
  esac
done
. "$root/tests/peers/figures.sh"
find_python || exit 1
[ -x "$shoal" ] || { echo "$shoal: not built (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

i=1
while [ "$i" -le "$times" ]; do
  run_shoal "$model" "$threads" step || exit 1
  run_peer "$model" "$threads" || exit 1
  printf 'run %d  %-12s %s threads  shoal %8.1f k tokens/s %6.0f MiB   torch %8.1f k tokens/s %6.0f MiB\n' "$i" "$model" \
    "$threads" "$(in_thousands "$(last shoal tokens_per_s)")" "$(in_mib "$(last shoal resident_bytes)")" \
    "$(in_thousands "$(last torch tokens_per_s)")" "$(in_mib "$(last torch resident_bytes)")"
  i=$((i + 1))
done
a=$(median_of shoal "$model" "$threads" tokens_per_s) b=$(median_of torch "$model" "$threads" tokens_per_s)
printf 'median %-12s %s threads  shoal %8.1f k tokens/s               torch %8.1f k tokens/s   ratio %s\n' "$model" "$threads" \
  "$(in_thousands "$a")" "$(in_thousands "$b")" "$(ratio "$a" "$b")"
