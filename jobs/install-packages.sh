#!/bin/sh
# jobs/install-packages.sh [build|test|mpich]: install what is missing to build Shoal (build), to test it too (test), or to
# build it with MPICH beside the system's Open MPI (mpich; Open MPI stays what mpicc and mpirun are).
# This is the one list of packages. As root, or with sudo, it calls apt-get; where there is no apt-get it checks that the
# tools and libraries are there and names the missing ones, to be had with `module load` or from your administrator.
set -eu

build="gcc libc6-dev cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libhdf5-openmpi-dev libblis-openmp-dev
  libxsmm-dev libscalapack-openmpi-dev libyaml-dev libxxhash-dev libcjson-dev zlib1g-dev libcmocka-dev"
mpich="mpich libmpich-dev libhdf5-mpich-dev libscalapack-mpich-dev"
test="clang-format-14 hdf5-tools"

case "${1:-build}" in
build) wanted=$build ;;
test) wanted="$build $test" ;;
mpich) wanted="$build $test $mpich" ;;
*) echo "usage: jobs/install-packages.sh [build|test|mpich]" >&2 && exit 2 ;;
esac

install_debian() {
  missing=
  for p in $wanted; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
  done
  if [ -z "$missing" ]; then
    echo "packages: all there"
    return 0
  fi
  echo "packages: installing$missing"
  as_root=
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "packages: neither root nor sudo here; ask an administrator for: apt-get install$missing" >&2
      return 1
    fi
    as_root="sudo"
  fi
  # shellcheck disable=SC2086 # lists of words
  $as_root env DEBIAN_FRONTEND=noninteractive sh -c "apt-get -q update && \
    apt-get -q -y --no-install-recommends install $missing" || {
    echo "packages: apt-get failed; wanted:$missing" >&2
    return 1
  }
}

check_others() {
  missing=
  for tool in cc cmake ninja pkg-config mpicc mpirun; do
    command -v $tool >/dev/null || missing="$missing $tool"
  done
  for library in hdf5-mpi yaml-0.1 libxxhash libcjson libxsmm zlib cmocka; do
    pkg-config --exists $library 2>/dev/null || missing="$missing $library"
  done
  [ -z "$missing" ] && return 0
  {
    echo "packages: this is no Debian; not found:$missing"
    echo "packages: load the modules (names differ by site), for example:"
    echo "  module load gcc cmake ninja openmpi hdf5 (parallel) blis scalapack libxsmm libyaml xxhash cjson zlib cmocka"
    echo "packages: and set PKG_CONFIG_PATH so that \`pkg-config --exists hdf5-mpi\` succeeds"
  } >&2
  return 1
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  install_debian
else
  check_others
fi
