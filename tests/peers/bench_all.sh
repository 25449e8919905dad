#!/bin/sh
# tests/peers/bench_all.sh [-n TIMES] [-t "1 2"] [-m "MODELS"] [-d DATA.h5] [-b SHOAL] [-c] [-P] [-u]: the figures of
# docs/BENCHMARKS.md as finished Markdown on standard output (progress on standard error); -u puts them into that page, between
# its two marks. Shoal and the PyTorch peer run alternately, TIMES times each (3); figures are medians. -c: the peer
# under torch.compile; -P leaves it out; PYTHON names the python3 whose PyTorch it runs. About 20 minutes; nothing else may
# run meanwhile.
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
times=3 models="hstu hstu-large sasrec fuxi-alpha fuxi-beta" counts="1 2" data='' steps='' peer=1 compile='' update=0
shoal=$root/build/release/bin/shoal
while getopts n:t:m:d:b:cPu option; do
  case $option in
  n) times=$OPTARG ;;
  t) counts=$OPTARG ;;
  m) models=$OPTARG ;;
  d) data=$OPTARG ;;
  b) shoal=$OPTARG ;;
  c) compile=--compile ;;
  P) peer=0 ;;
  u) update=1 ;;
  *) sed -n '2,6s/^# //p' "$0" >&2 && exit 2 ;;
  esac
done
. "$root/tests/peers/figures.sh"
[ $peer = 0 ] || find_python || exit 1
[ -x "$shoal" ] || { echo "$shoal: not built (cmake --preset release && cmake --build --preset release)" >&2; exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

load=$(cut -d' ' -f1 /proc/loadavg)
busy=$(awk -v x="$load" 'BEGIN { print (x > 0.5) }')
if [ "$busy" = 1 ]; then
  echo "note: the machine is busy (load $load): these figures are not fit for publication" >&2
  [ $update = 0 ] || { echo "docs/BENCHMARKS.md takes figures of a quiet machine only: wait, or leave -u out" >&2; exit 1; }
fi
page=$root/docs/BENCHMARKS.md
if [ $update = 1 ]; then
  [ "$(grep -c '^<!-- figures: ' "$page")" = 2 ] || { echo "$page: its two marks are missing" >&2; exit 1; }
fi

i=1
while [ "$i" -le "$times" ]; do
  for model in $models; do
    for n in $counts; do
      echo "round $i of $times: $model, $n threads" >&2
      run_shoal "$model" "$n" step bf16 || exit 1
      run_shoal "$model" "$n" step,eval || exit 1
      [ $peer = 0 ] || run_peer "$model" "$n" --eval || exit 1
    done
  done
  i=$((i + 1))
done

# The authors' code (facebookresearch/generative-recommenders 2e81fab, PyTorch 1.13 with tuned malloc, anomaly detection
# off) on this class of CPU.
authors() { # model threads: valid tokens/s
  case $1.$2 in
  hstu.1) echo 11700 ;; hstu.2) echo 13400 ;;
  hstu-large.1) echo 4900 ;; hstu-large.2) echo 5600 ;;
  sasrec.1) echo 10400 ;; sasrec.2) echo 11100 ;;
  *) echo 0 ;;
  esac
}
cell() { [ -n "$1" ] && awk -v x="$1" -v s="$2" -v f="$3" 'BEGIN { printf f, x / s }' || printf '%s' '-'; }

report() {
  echo "### Machine"
  echo
  echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); load when started: $load."
  echo
  echo '```'
  "$shoal" --version | grep -E '^(shoal|commit|compiler|flags|mpi|blas|libxsmm|isa)'
  [ $peer = 0 ] || "$python" -c 'import torch; print("peer: PyTorch " + torch.__version__ + "'"${compile:+ under torch.compile}"'")'
  echo '```'
  echo
  echo "### Training"
  echo
  echo "\`tests/peers/bench_all.sh -n $times${data:+ -d DATA.h5}\`: valid tokens/s, medians of $times alternating runs."
  echo
  echo "| model | threads | shoal, k tokens/s | resident MiB | authors' code | ratio | PyTorch peer | ratio | peer MiB |"
  echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
  for model in $models; do
    for n in $counts; do
      own=$(median_of shoal "$model" "$n" tokens_per_s) mem=$(median_of shoal "$model" "$n" resident_bytes) other='' other_mem=''
      [ $peer = 0 ] || other=$(median_of torch "$model" "$n" tokens_per_s) other_mem=$(median_of torch "$model" "$n" resident_bytes)
      them=$(authors "$model" "$n")
      [ "$them" != 0 ] || them=''
      echo "| $model | $n | $(cell "$own" 1000 %.1f) | $(cell "$mem" 1048576 %.0f) | $(cell "$them" 1000 %.1f) |" \
        "$(ratio "$own" "${them:-0}") | $(cell "$other" 1000 %.1f) | $(ratio "$own" "${other:-0}") | $(cell "$other_mem" 1048576 %.0f) |"
    done
  done
  echo
  echo "With \`train.precision=bf16\`, in the same rounds:"
  echo
  echo "| model | threads | shoal, k tokens/s | of fp32 | of the authors' code |"
  echo "| --- | ---: | ---: | ---: | ---: |"
  for model in $models; do
    for n in $counts; do
      half=$(median_of shoalbf16 "$model" "$n" tokens_per_s)
      echo "| $model | $n | $(cell "$half" 1000 %.1f) | $(awk -v a="$half" -v b="$(median_of shoal "$model" "$n" tokens_per_s)" 'BEGIN { printf "%.2f", a / b }') |" \
        "$(ratio "$half" "$(authors "$model" "$n")") |"
    done
  done
  echo
  echo "### Evaluation"
  echo
  echo "Full ranking of every user's last event over all candidates, users/s, the same runs."
  echo
  echo "| model | threads | shoal | PyTorch peer | ratio |"
  echo "| --- | ---: | ---: | ---: | ---: |"
  for model in $models; do
    for n in $counts; do
      own=$(median_of shoal "$model" "$n" eval_users_per_s) other=''
      [ $peer = 0 ] || other=$(median_of torch "$model" "$n" eval_users_per_s)
      echo "| $model | $n | $(cell "$own" 1 %.0f) | $(cell "$other" 1 %.0f) | $(ratio "$own" "${other:-0}") |"
    done
  done
  if [ "$(nproc)" -ge 2 ]; then
    echo
    echo "### Ranks"
    echo
    echo "\`mpirun -n 2 shoal bench configs/ml-1m/hstu.yaml --threads 1 --only step,eval\`, medians of $times runs."
    echo
    echo "| ranks x threads | k tokens/s | resident MiB of a rank | evaluation, users/s |"
    echo "| --- | ---: | ---: | ---: |"
    i=1
    while [ "$i" -le "$times" ]; do
      run_ranks 2 hstu step,eval || exit 1
      i=$((i + 1))
    done
    echo "| 2 x 1 | $(cell "$(median_of ranks hstu 2 tokens_per_s)" 1000 %.1f) |" \
      "$(cell "$(median_of ranks hstu 2 resident_bytes)" 1048576 %.0f) | $(cell "$(median_of ranks hstu 2 eval_users_per_s)" 1 %.0f) |"
  fi
  echo
  echo "### Where the time goes"
  for n in $counts; do
    echo
    echo "\`shoal bench configs/ml-1m/hstu.yaml --threads $n\`"
    echo
    echo '```'
    "$shoal" bench "$root/configs/ml-1m/hstu.yaml" ${data:+data.path="$data"} --threads "$n" | sed 's/ \+$//' || exit 1
    echo '```'
  done
}

if [ $update = 0 ]; then
  report
  exit
fi
report >"$dir/figures.md" || exit 1
awk -v figures="$dir/figures.md" '
  /^<!-- figures: begin/ { print; print ""; while ((getline line < figures) > 0) print line; print ""; inside = 1 }
  /^<!-- figures: end/ { inside = 0 }
  !inside' "$page" >"$dir/page.md" && cp "$dir/page.md" "$page" && echo "$page: figures replaced" >&2
