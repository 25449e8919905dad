#!/bin/sh
# tests/slurm/train.sh SHOAL: slurm/train.sbatch on a real Slurm of two nodes, made on this machine by cluster.sh. Three
# to ten minutes. Needs root and the packages slurm-wlm, munge and iproute2; exit 77 (skipped) where they are missing.
set -u
here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$(dirname "$here")")

skip() {
  echo "SKIPPED: tests of slurm/train.sbatch: $*"
  exit 77
}

on_this_machine() { # shoal
  [ "$(id -u)" = 0 ] || skip "not root, so that no nodes can be made (network and mount namespaces)"
  for tool in slurmctld slurmd sbatch srun munged ip unshare nsenter; do
    command -v $tool >/dev/null || skip "$tool is not installed (apt-get install slurm-wlm munge iproute2)"
  done
  unshare --fork --pid --mount-proc --mount --net --uts --ipc ip link add br0 type bridge 2>/dev/null ||
    skip "this machine does not allow namespaces or network bridges"
  shoal=$(realpath "$1")
  [ -x "$shoal" ] || { echo "$shoal is not there: build it" && exit 1; }
  dir=$(mktemp -d "${TMPDIR:-/tmp}/shoal-slurm.XXXXXX")
  # The ranks of both nodes share this machine's cores: no spinning, no OpenMP teams.
  OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1 SHOAL=$shoal TMPDIR=/tmp \
    timeout -k 10 2400 sh "$here/cluster.sh" 2 "$dir" sh "$0" --on-head "$dir" &
  cluster=$!
  trap 'kill -TERM $cluster; wait $cluster; exit 143' INT TERM HUP
  wait $cluster
  status=$?
  if [ $status = 0 ]; then
    rm -rf "$dir"
  else
    echo "slurm: failed with $status; job outputs and logs are kept in $dir"
  fi
  exit $status
}

failed=0
say() { echo "slurm: $*"; }
expect() { # what found wanted
  if [ "$2" = "$3" ]; then
    say "  ok: $1: $2"
  else
    say "  FAILED: $1: found '$2', expected '$3'"
    failed=1
  fi
}
job_value() { scontrol -o show job "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"; } # job key
output() { echo "$dir/shoal-$1.out"; }
has_line() { grep -q "$2" "$1" 2>/dev/null; }
has_stopped_or_is_over() { has_line "$(output "$1")" "^stopped on request with a checkpoint: requeue" || is_over "$1"; }
is_over() { # job
  case $(job_value "$1" JobState) in
  PENDING | RUNNING | SUSPENDED | COMPLETING) return 1 ;;
  esac
}
steps_done() { grep -c '"kind":"train"' "$dir/$1/metrics.jsonl" 2>/dev/null || true; } # run
some_steps() { [ "$(steps_done "$1")" -ge "$2" ] 2>/dev/null; }                         # run least

within() { # seconds command...: poll; false when it did not come true
  limit=$1
  shift
  end=$(($(date +%s) + limit))
  until "$@"; do
    if [ "$(date +%s)" -ge $end ]; then
      say "  FAILED: not within $limit s: $*"
      failed=1
      return 1
    fi
    sleep 0.5
  done
}

write_config() { # run steps
  cat >"$dir/$1.new" <<YAML
data:
  path: $dir/data.h5
model:
  name: hstu
  width: 16
  layers: 1
  max_len: 50
loss:
  negatives: 16
batch:
  users: 16
train:
  out: $dir/$1
  steps: $2
  epochs: 100000000
  eval_every: 0
  log_every: 1
checkpoint:
  every_epochs: 0
YAML
  mv "$dir/$1.new" "$dir/$1.yaml"
}

submit() { # run sbatch options... [-- overrides...]; sets job
  run=$1
  shift
  options=
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options="$options $1"
    shift
  done
  [ $# = 0 ] || shift
  # shellcheck disable=SC2086 # words
  job=$(cd "$dir" && sbatch --parsable -N 2 --cpus-per-task=1 $options "$repo/slurm/train.sbatch" "$run.yaml" "$@")
  say "  job $job: sbatch -N 2$options slurm/train.sbatch $run.yaml $*"
}

report() { # job: what it printed beside its progress lines
  grep -v '^epoch .* step ' "$(output "$1")" | sed 's/^/    | /'
  say "  job $1: $(job_value "$1" JobState), exit $(job_value "$1" ExitCode), requeued $(job_value "$1" Restarts) times"
}

expect_end() { # job state exit restarts
  within 400 is_over "$1"
  report "$1"
  expect "state" "$(job_value "$1" JobState)" "$2"
  expect "exit code" "$(job_value "$1" ExitCode)" "$3"
  [ -z "$4" ] || expect "times requeued" "$(job_value "$1" Restarts)" "$4"
}

expect_each_step_once() { # run
  expect "steps of metrics.jsonl" "$(sed -n 's/.*"kind":"train","step":\([0-9]*\).*/\1/p' "$dir/$1/metrics.jsonl" |
    awk '$1 != NR { bad++ } END { print NR " lines, " bad + 0 " out of order" }')" "$2 lines, 0 out of order"
}

# After the stop: a new last step, a little further, so that the requeued job comes to its end.
expect_requeue_and_end() { # run job seconds
  within "$3" has_stopped_or_is_over "$2"
  last=$(($(steps_done "$1") + 10))
  write_config "$1" $last
  expect_end "$2" COMPLETED 0:0 ""
  expect "requeued at least once" "$([ "$(job_value "$2" Restarts)" -ge 1 ] && echo yes)" yes
  resumed="$(has_line "$(output "$2")" "^resumed $dir/$1/ckpt/latest.h5" && echo yes)"
  expect "continued from the checkpoint" "$resumed" yes
  expect_each_step_once "$1" $last
}

trains_on_two_nodes() {
  say "two nodes, one rank each"
  write_config plain 20
  submit plain --ntasks-per-node=1
  expect_end "$job" COMPLETED 0:0 0
  expect "one world" "$(sed -n 's/^grid *\([0-9]* ranks\).*/\1/p' "$(output "$job")")" "2 ranks"
  expect_each_step_once plain 20
}

stops_before_the_time_limit() {
  say "time limit of 2 minutes, signal 45 s before it (Slurm may send it 30 s earlier)"
  write_config limit 1000000000
  submit limit --ntasks-per-node=1 --time=2 --signal=USR1@45
  expect_requeue_and_end limit "$job" 400
}

stops_when_preempted() {
  say "two ranks on each node, preempted by a job of a higher partition"
  write_config preempted 1000000000
  submit preempted --ntasks-per-node=2
  within 240 some_steps preempted 5 || return
  sbatch -p urgent -N 2 --ntasks-per-node=2 --output="$dir/urgent.out" --wrap "sleep 5" | sed 's/^/    | /'
  expect_requeue_and_end preempted "$job" 240
  expect "one world" "$(sed -n 's/^grid *\([0-9]* ranks\).*/\1/p' "$(output "$job")" | sort -u)" "4 ranks"
}

fails_for_good() {
  say "a bad configuration"
  write_config bad 20
  submit bad --ntasks-per-node=1 -- train.stepz=3
  expect_end "$job" FAILED 2:0 0
  sleep 10
  expect "state ten seconds later" "$(job_value "$job" JobState)" FAILED
}

ends_with_a_dead_rank() {
  say "rank 1 killed"
  write_config dead 1000000000
  submit dead --ntasks-per-node=1
  within 240 some_steps dead 5 || return
  for pid in $(pgrep -f "^${SHOAL:?} train dead.yaml"); do
    tr '\0' '\n' <"/proc/$pid/environ" | grep -qx SLURM_PROCID=1 && kill -KILL "$pid" && say "  killed process $pid"
  done
  killed=$(date +%s)
  within 90 is_over "$job"
  say "  the job was over $(($(date +%s) - killed)) s after it"
  expect_end "$job" FAILED 137:0 0
}

ends_with_scancel() {
  say "scancel"
  write_config cancelled 1000000000
  submit cancelled --ntasks-per-node=1
  within 240 some_steps cancelled 5 || return
  scancel "$job"
  expect_end "$job" CANCELLED 0:15 0
  sleep 10
  expect "state ten seconds later" "$(job_value "$job" JobState)" CANCELLED
}

on_head() { # dir
  dir=$1
  say "$(sinfo --version), nodes $(sinfo -h -p main -o %N), $("$SHOAL" --version | sed -n 's/^mpi: //p')"
  OMP_NUM_THREADS=1 "$SHOAL" synth "$dir/data.h5" --preset toy >"$dir/synth.out" || return 1
  trains_on_two_nodes
  fails_for_good
  ends_with_a_dead_rank
  ends_with_scancel
  stops_when_preempted
  stops_before_the_time_limit
  [ $failed = 0 ] && say "all as expected"
  return $failed
}

case "${1:-}" in
--on-head) on_head "$2" ;;
"") echo "usage: tests/slurm/train.sh SHOAL" >&2 && exit 2 ;;
*) on_this_machine "$1" ;;
esac
