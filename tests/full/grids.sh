#!/bin/sh
# tests/full/grids.sh SHOAL: every model on every data x tensor grid of 1, 2, 3, 4, 6 and 8 ranks, with and without sliced rows,
# ZeRO-1, bf16 on the wire and recomputing, against one rank.
tests=$(dirname "$0")/..
program=$(dirname "$1")/../tests/test_tensor_grid
failed=0
for n in 1 2 3 4 6 8; do
  SHOAL_TEST_FULL=1 SHOAL_MPI_TIMEOUT=1200 "$tests/mpirun.sh" $n "$program" >"$program.$n.log" 2>&1 || failed=1
  grep -E '  [0-9]+ runs|off by|loss .* against|FAILED' "$program.$n.log" | sed "s/^/$n ranks:/"
done
exit $failed
