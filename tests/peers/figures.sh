# shellcheck shell=sh disable=SC2154
# tests/peers/figures.sh: what compare.sh and bench_all.sh share; sourced by them. One JSON line a run is appended to
# $dir/PROGRAM.MODEL.THREADS; $shoal, $root, $data, $steps, $compile, $dir are the caller's.

find_python() {
  for python in "${PYTHON:-}" python3 /usr/bin/python3; do
    [ -n "$python" ] && "$python" -c 'import numpy, torch' 2>/dev/null && return
  done
  echo "no python3 with PyTorch and NumPy found (Debian: apt-get install python3-torch python3-h5py); set PYTHON" >&2
  return 1
}

run_shoal() { # model threads sections [bf16]
  "$shoal" bench "$root/configs/ml-1m/$1.yaml" ${data:+data.path="$data"} ${4:+train.precision="$4"} --threads "$2" \
    ${steps:+--steps "$steps"} --only "$3" --json "$dir/line" >"$dir/log" 2>&1 || {
    cat "$dir/log" >&2
    return 1
  }
  latest_shoal=$dir/shoal${4:-}.$1.$2
  cat "$dir/line" >>"$latest_shoal"
}

run_ranks() { # ranks model sections; one thread each
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -n "$1" "$shoal" bench "$root/configs/ml-1m/$2.yaml" \
    ${data:+data.path="$data"} --threads 1 --only "$3" --json "$dir/line" >"$dir/log" 2>&1 || {
    cat "$dir/log" >&2
    return 1
  }
  cat "$dir/line" >>"$dir/ranks.$2.$1"
}

run_peer() { # model threads [--eval]
  "$python" "$root/tests/peers/torch_sequence.py" --model "$1" --threads "$2" ${data:+--data "$data"} \
    ${steps:+--steps "$steps"} ${3:+"$3"} ${compile:+"$compile"} >"$dir/line" 2>"$dir/log" || {
    cat "$dir/log" >&2
    return 1
  }
  latest_torch=$dir/torch.$1.$2
  cat "$dir/line" >>"$latest_torch"
}

# The values of a key in a file of JSON lines, one a line.
values() { # file key
  sed -n "s/.*\"$2\": *\([0-9.eE+]*\).*/\1/p" "$1"
}
last() { # program key
  if [ "$1" = shoal ]; then values "$latest_shoal" "$2"; else values "$latest_torch" "$2"; fi | tail -n 1
}
median_of() { # program model threads key
  values "$dir/$1.$2.$3" "$4" | awk '{ printf "%.6f\n", $1 }' | sort -n |
    awk '{ x[NR] = $1 } END { if (NR) print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'
}
in_thousands() { awk -v x="$1" 'BEGIN { printf "%.1f", x / 1000 }'; }
in_mib() { awk -v x="$1" 'BEGIN { printf "%.0f", x / 1048576 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.1fx", a / b; else printf "-" }'; }
