#!/bin/sh
# jobs/quickstart.sh: from nothing to a trained, evaluated and resumed model on this machine, in a few minutes.
# It installs missing packages (jobs/install-packages.sh), builds build/release/bin/shoal, makes a small data set,
# trains HSTU on 2 ranks, evaluates, looks into the checkpoint and continues from it. Everything it makes lies below
# build/ and run/quickstart/; running it again starts over.
set -eu
cd "$(dirname "$0")/.."
started=$(date +%s)
shoal=build/release/bin/shoal
run=run/quickstart
steps=7
step=0

say() {
  step=$((step + 1))
  printf '\n== %d/%d %s\n' $step $steps "$1"
}
do_() {
  printf '+ %s\n' "$*"
  "$@"
}
failed() {
  status=$?
  [ $status = 0 ] || printf '\nquickstart: step %d of %d failed with exit code %d\n' $step $steps $status >&2
}
trap failed EXIT

# nproc first: it counts OMP_NUM_THREADS, too.
cores=$(OMP_NUM_THREADS='' nproc 2>/dev/null || echo 1)
# Two ranks of one thread. A container may allow one core, or root only: mpirun wants to be told that this is meant.
export OMP_NUM_THREADS=1
ranks="mpirun -n 2 --oversubscribe --bind-to none"
if [ "$(id -u)" = 0 ]; then
  ranks="$ranks --allow-run-as-root"
fi
if [ "$cores" -lt 2 ]; then
  ranks="$ranks --mca mpi_yield_when_idle 1"
fi

say "packages"
jobs/install-packages.sh build

say "build (about a minute the first time)"
mkdir -p build
printf '+ cmake --preset release && cmake --build --preset release --target shoal_program\n'
if ! { cmake --preset release && cmake --build --preset release --target shoal_program; } >build/quickstart.log 2>&1; then
  tail -n 40 build/quickstart.log
  echo "the whole log: build/quickstart.log" >&2
  exit 1
fi
$shoal --version

say "data: a set whose best possible HR@10 is known"
rm -rf $run
mkdir -p $run
do_ $shoal synth $run/data.h5 --preset toy --users 4000

say "train HSTU on 2 ranks (about half a minute)"
# shellcheck disable=SC2086 # a command with its arguments
do_ $ranks $shoal train configs/synth/quickstart.yaml

say "evaluate the newest checkpoint"
# shellcheck disable=SC2086
do_ $ranks $shoal eval $run/ckpt/latest.h5

say "what the checkpoint holds"
do_ $shoal inspect $run/ckpt/latest.h5

say "resume: two more epochs from there"
# shellcheck disable=SC2086
do_ $ranks $shoal resume configs/synth/quickstart.yaml train.epochs=8

cat <<END

Done in $(($(date +%s) - started)) s.
  program      $shoal              (--help lists its commands)
  data set     $run/data.h5
  checkpoints  $run/ckpt/               (latest.h5, best.h5)
  metrics      $run/metrics.jsonl       (one line an interval)
  resolved     $run/config.yaml         (every key as it was used)
Next: README.md has the commands for MovieLens-1M; tests/run.sh checks this build.
END
