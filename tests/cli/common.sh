# shellcheck shell=sh disable=SC2034 # failed is read by those who source this
# Sourced by tests/cli/test_*.sh, which get the path of the program: a folder $dir that goes away at the end, and how
# commands are run on some ranks and judged. A script ends with `exit $failed`.
shoal=$1
cli=$(cd "$(dirname "$0")" && pwd)
[ -x "$shoal" ] || { echo "usage: $0 SHOAL" >&2 && exit 2; }
dir=$(mktemp -d) || exit 1
failed=0
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive SHOAL_MPI_TIMEOUT=120
unset SHOAL_LOG SHOAL_ISA

complain() { # message; shows the last command's output
  echo "FAILED: $*"
  sed 's/^/  out: /' "$dir/out" | tail -n 20
  sed 's/^/  err: /' "$dir/err" | tail -n 20
  failed=1
}

# ranks command...: the exit code in $code, output in $dir/out and $dir/err. 124 is a hang.
run() {
  run_ranks=$1
  shift
  if [ "$run_ranks" = 1 ]; then
    timeout "$SHOAL_MPI_TIMEOUT" "$@" >"$dir/out" 2>"$dir/err"
  else
    "$cli/../mpirun.sh" "$run_ranks" "$@" >"$dir/out" 2>"$dir/err"
  fi
  code=$?
}

# exit-code: the last command ended with it. MPICH's mpiexec says 9 where it had to kill a rank that the failing one left.
ended_with() {
  [ "$code" = "$1" ] || [ "${SHOAL_MPI:-} $code $((run_ranks > 1 && $1 > 0))" = "mpich 9 1" ]
}

# ranks exit-code words shoal-arguments...: the words stand on the only line that shoal writes to standard error ("" for
# none at all). mpirun has lines of its own there.
expect() {
  want=$2 words=$3 ranks=$1
  shift 3
  run "$ranks" "$shoal" "$@"
  lines=$(grep -c '^shoal: ' "$dir/err")
  problem=
  ended_with "$want" || problem=" exit code $code, expected $want;"
  if [ -n "$words" ]; then
    [ "$lines" = 1 ] || problem="$problem $lines lines on standard error, expected 1;"
    grep '^shoal: ' "$dir/err" | grep -qF -- "$words" || problem="$problem '$words' is not on standard error;"
  else
    [ "$lines" = 0 ] || problem="$problem something on standard error;"
  fi
  [ "$ranks" != 1 ] || [ "$(wc -l <"$dir/err")" = "$lines" ] || problem="$problem more than the message;"
  [ -z "$problem" ] || complain "$ranks ranks, $*:$problem"
}

# exit-code words command...: on one rank, the words anywhere in what it prints; all of that is in $dir/out.
says() {
  says_code=$1 says_words=$2
  shift 2
  run 1 "$@"
  cat "$dir/err" >>"$dir/out"
  : >"$dir/err"
  [ $code = "$says_code" ] || complain "$*: exit code $code, expected $says_code"
  grep -qF -- "$says_words" "$dir/out" || complain "$*: '$says_words' is not in its output"
}

# file section.key=value...: a configuration of these, and of what small runs on $dir/data.h5 share unless they say other.
recipe() {
  recipe_file=$1
  shift
  printf '%s\n' "data.path=$dir/data.h5" model.width=16 model.max_len=20 loss.negatives=16 "$@" | awk -F'[.=]' '
    !($1 in keys) { section[++n] = $1; keys[$1] = "" }
    !(($1, $2) in value) { keys[$1] = keys[$1] " " $2 }
    { value[$1, $2] = substr($0, index($0, "=") + 1) }
    END {
      for (i = 1; i <= n; i++) {
        print section[i] ":"
        m = split(keys[section[i]], key, " ")
        for (k = 1; k <= m; k++) print "  " key[k] ": " value[section[i], key[k]]
      }
    }' >"$recipe_file"
}

# file, a run's metrics.jsonl: without what depends on the clock and the machine.
lasting() {
  grep -v '"kind":"ranks"' "$1" | sed -E 's/"(tokens_per_s|mfu|comm_share|resident_mb|seconds)":[^,}]*/"\1":0/g'
}

# run-folder what: the newest checkpoint is whole.
whole() {
  run 1 "$shoal" verify "$1/ckpt/latest.h5"
  [ $code = 0 ] || complain "$2: the newest checkpoint does not verify"
}
