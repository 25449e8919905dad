#!/bin/sh
# tests/peers/cost_per_token.sh [-n TIMES] [-t THREADS] [-b SHOAL] [-o FOLDER] [section.key=value ...]: what a training token
# costs, against the users of a batch (8 to 512) and against the length of histories (50 to 4,096, batches of 16,384 tokens).
# HSTU, two layers; further settings go to every run. Writes FOLDER/cost_per_token.csv and .svg (docs/plots), best of TIMES
# (3) rounds. About 10 minutes on a quiet machine. Needs gnuplot (Debian: gnuplot-nox) and awk.
#
# Sequences are synthetic. Left out is what does not grow with the batch: the optimiser's sweep over table and dense
# parameters, as measured alone; and, against length, what must grow with it: attention over causal pairs, as its kernel
# was measured alone over the same batch.
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
times=3 threads=1 shoal=$root/build/release/bin/shoal out=$root/docs/plots
while getopts n:t:b:o: option; do
  case $option in
  n) times=$OPTARG ;;
  t) threads=$OPTARG ;;
  b) shoal=$OPTARG ;;
  o) out=$OPTARG ;;
  *) sed -n '2,3s/^# //p' "$0" >&2 && exit 2 ;;
  esac
done
shift $((OPTIND - 1))
command -v gnuplot >/dev/null || { echo "gnuplot is missing (Debian: apt-get install gnuplot-nox)" >&2 && exit 1; }
[ -x "$shoal" ] || { echo "$shoal: not built (cmake --preset release && cmake --build --preset release)" >&2 && exit 1; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -p "$out" || exit 1

for users in 8 16 32 64 128 256 512; do
  echo "users-$users batch.users=$users bench.steps=$((768 / users + 3))"
done >"$dir/shapes"
for length in 50 100 200 400 800 1600 4096; do
  echo "length-$length model.max_len=$length bench.length=$length batch.users=$((16384 / length)) bench.steps=4"
done >>"$dir/shapes"

# A line a shape and round: name, tokens, seconds of a step, of its optimiser, of attention in all layers and heads.
figures() {
  sed 's/{"section"/\n&/g' "$dir/json" | awk '
    function value(key) { return match($0, "\"" key "\":\"?[^\",}]*") ? substr($0, RSTART, RLENGTH) : "" }
    function number(key,    text) { text = value(key); sub(/^[^:]*:/, "", text); return text + 0 }
    /^{"shape"/ { name = value("shape"); sub(/.*"/, "", name); layers = number("layers"); tokens = number("step_tokens")
                  attention = 0; next }
    /"name":"HSTU attention, a head"|"name":"HSTU attention backward"/ { attention += layers * number("seconds") }
    /"section":"step","name":"whole step"/ { step = number("seconds") }
    /"section":"step","name":"optimiser"/ { print name, tokens, step, number("seconds"), attention }'
}
i=1
while [ "$i" -le "$times" ]; do
  echo "round $i of $times" >&2
  "$shoal" bench --shapes "$dir/shapes" --only kernels,layers,step --threads "$threads" --json "$dir/json" model.heads=1 "$@" \
    >"$dir/log" 2>&1 || { cat "$dir/log" >&2 && exit 1; }
  figures >>"$dir/rounds"
  i=$((i + 1))
done
awk 'BEGIN { print "against,at,tokens,step_ms,optimiser_ms,attention_ms,us_per_token,us_per_token_without_attention" }
  { cost = ($3 - $4) / $2 }
  !($1 in best) { order[++n] = $1; split($1, at, "-"); head[$1] = sprintf("%s,%d,%.0f", at[1], at[2], $2) }
  !($1 in best) || cost < best[$1] { best[$1] = cost; step[$1] = sprintf("%.3f,%.3f", 1e3 * $3, 1e3 * $4) }
  !($1 in pairs) || $5 < pairs[$1] { pairs[$1] = $5; part[$1] = $5 / $2 }
  END { for (i = 1; i <= n; i++) { k = order[i]
          printf "%s,%s,%.3f,%.3f,%.3f\n", head[k], step[k], 1e3 * pairs[k], 1e6 * best[k], 1e6 * (best[k] - part[k]) } }
' "$dir/rounds" >"$out/cost_per_token.csv" || exit 1

grep '^users' "$out/cost_per_token.csv" >"$dir/users"
grep '^length' "$out/cost_per_token.csv" >"$dir/length"
gnuplot <<EOF || exit 1
set terminal svg size 900,380 font "sans,12" background "white"
set output "$out/cost_per_token.svg"
set datafile separator ","
set multiplot layout 1,2
set logscale x 2
set yrange [0:*]
set grid ytics
set ylabel "µs a token"
set key bottom right
set xlabel "users in a batch"
set xtics (8, 16, 32, 64, 128, 256, 512)
plot "$dir/users" using 2:7 with linespoints pointtype 7 title "without the optimiser's sweep"
set xlabel "inputs of a history"
set xtics (50, 100, 200, 400, 800, 1600, 4096)
set key top left
plot "$dir/length" using 2:7 with linespoints pointtype 7 title "all but the sweep", \
     "$dir/length" using 2:8 with linespoints pointtype 7 title "and without attention over pairs"
EOF
echo "$out/cost_per_token.csv and .svg written" >&2
