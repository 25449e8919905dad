#!/bin/sh
# tests/full/mpich.sh: another MPI, Debian's MPICH: the preset `mpich` builds, and the tests of ranks pass on 1 to 4 of them.
cd "$(dirname "$0")/../.." || exit 1
if ! command -v mpicc.mpich >/dev/null; then
  jobs/install-packages.sh mpich && command -v mpicc.mpich >/dev/null || { echo "no MPICH to be had here" && exit 77; }
fi
build=build/mpich
cmake --preset mpich -DSHOAL_TESTS=ON >$build.configure.log 2>&1 || { cat $build.configure.log && exit 1; }
cmake --build --preset mpich -j "$(nproc)" >$build.build.log 2>&1 || {
  grep -E 'error|FAILED|undefined' $build.build.log | head -40
  exit 1
}
ldd $build/bin/shoal | grep -q 'libmpich\.so' || { echo "the program is not linked with MPICH" && exit 1; }
! ldd $build/bin/shoal | grep -q 'libmpi\.so' || { echo "the program is linked with Open MPI, too" && exit 1; }
cd $build || exit 1
for tests in '^test_.*\.[1-4]$' '^test_(single|config)$' '^cli\.test_(check|train_failures|eval_recommend)$'; do
  ctest -R "$tests" --no-tests=error --timeout 300 --output-on-failure || failed=1
done
exit "${failed:-0}"
