#!/bin/sh
# tests/run.sh [--full]: build and run the tests. Ends with "N passed, N failed"; exit 1 when any failed.
# Missing packages are installed first (jobs/install-packages.sh). Tests on real data run where SHOAL_TEST_DATA names a
# folder that has them, and are reported as skipped elsewhere. --full adds the long tests of tests/full/.
cd "$(dirname "$0")/.." || exit 1
cores=$(OMP_NUM_THREADS='' nproc 2>/dev/null || echo 2) # nproc would count OMP_NUM_THREADS, too
full=0
case "${1:-}" in
"") ;;
--full) full=1 ;;
*) echo "usage: tests/run.sh [--full]" >&2 && exit 2 ;;
esac

build=build/release
shoal=$PWD/$build/bin/shoal
passed=0
failed=0
skipped=0
failures=
started=$(date +%s)

begin() {
  part=$1
  part_started=$(date +%s)
  printf '\n== %s\n' "$part"
}
finish() { # status
  case $1 in
  0) passed=$((passed + 1)) word=passed ;;
  77) skipped=$((skipped + 1)) word=skipped ;;
  *) failed=$((failed + 1)) word=FAILED failures="$failures
  $part" ;;
  esac
  printf -- '-- %s: %s, %d s\n' "$part" "$word" $(($(date +%s) - part_started))
}
check() { # name command...
  begin "$1"
  shift
  "$@"
  finish $?
}
summary() {
  [ $skipped = 0 ] || printf '\n%d skipped (see above why)\n' $skipped
  [ -z "$failures" ] || printf '\nfailed:%s\n' "$failures"
  printf '\ntotal time %d s\n' $(($(date +%s) - started))
  printf '%d passed, %d failed\n' $passed $failed
  [ $failed = 0 ]
  exit
}

build_all() {
  cmake --preset release -DSHOAL_TESTS=ON >$build.configure.log 2>&1 || {
    cat $build.configure.log
    return 1
  }
  cmake --build --preset release -j "$cores" -- -k 0 >$build.build.log 2>&1 || {
    grep -E 'error|FAILED|undefined|ninja:' $build.build.log | grep -v '^/' | head -60
    echo "the whole log: $build.build.log"
    return 1
  }
}

# Each ctest test counts by itself. The verdicts come from ctest's report, so a ctest that dies counts as a failure.
run_ctest() {
  begin "ctest"
  report=$PWD/$build/ctest.xml
  rm -f "$report"
  (cd $build && ctest -j "$cores" --timeout 300 --output-on-failure --output-junit "$report")
  if [ ! -s "$report" ]; then
    echo "ctest left no report"
    finish 1
    return
  fi
  counts=$(awk '
    /<testcase /  { name = $0; sub(/.* name="/, "", name); sub(/".*/, "", name)
                    status = $0; sub(/.* status="/, "", status); sub(/".*/, "", status)
                    if (status == "run") pass++
                    else if (status == "fail") { fail++; bad = bad " " name }
                    else { pending = name } }
    /<skipped /   { if (pending != "") { if (/SKIP_RETURN_CODE/) skip++; else { fail++; bad = bad " " pending } } pending = "" }
    END { print pass + 0, fail + 0, skip + 0 bad }' "$report")
  # shellcheck disable=SC2086 # passed failed skipped name...
  set -- $counts
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
  [ $(($1 + $2 + $3)) -gt 0 ] || failed=$((failed + 1)) failures="$failures
  ctest: no tests"
  printf -- '-- ctest: %d passed, %d failed, %d skipped, %d s\n' "$1" "$2" "$3" $(($(date +%s) - part_started))
  shift 3
  for name; do failures="$failures
  $name"; done
}

check "packages" jobs/install-packages.sh test
[ $failed = 0 ] || summary
mkdir -p build
check "format" tests/format.sh
check "layers" tests/layers.sh
check "layers finds violations" tests/layers_test.sh
check "build" build_all
if [ -f $build/CTestTestfile.cmake ]; then
  run_ctest
else
  check "ctest (nothing was built)" false
fi
if [ $full = 1 ]; then
  for script in tests/full/*.sh; do
    [ -f "$script" ] && check "$script" sh "$script" "$shoal"
  done
fi
summary
