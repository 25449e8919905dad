#!/bin/sh
# tests/full/sanitizers.sh: the debug preset (AddressSanitizer, UndefinedBehaviorSanitizer) over all one-process tests and the
# two-rank MPI tests. Leaks are not counted: MPI and HDF5 keep theirs.
cd "$(dirname "$0")/../.." || exit 1
log=build/debug.log
mkdir -p build
if ! { cmake --preset debug && cmake --build --preset debug; } >$log 2>&1; then
  tail -n 40 $log
  exit 1
fi
export ASAN_OPTIONS=detect_leaks=0
cd build/debug && ctest --timeout 1500 --output-on-failure -E '^(cli\.|test_.*\.[13458]$)'
