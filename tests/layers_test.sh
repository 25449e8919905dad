#!/bin/sh
# tests/layers_test.sh: tests/layers.sh accepts a good tree and rejects each kind of violation by file and line.
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d) || exit 1
trap 'rm -rf "$tree"' EXIT
failed=0

fresh() {
  rm -rf "${tree:?}"/*
  mkdir -p "$tree/include/shoal" "$tree/src/core" "$tree/src/nn" "$tree/src/train" "$tree/mpi" "$tree/jobs"
  printf 'include/shoal\nsrc/core public\nmpi public public_mpi core\nsrc/nn public core mpi/h5par.h\nsrc/train public core mpi nn\njobs public public_mpi\n' >"$tree/LAYERS"
  echo '#include <stdint.h>' >"$tree/include/shoal/a.h"
  printf '#include <mpi.h>\n' >"$tree/include/shoal/shoal_mpi.h"
  printf '#include "shoal/a.h"\n#include "core/c.h"\n' >"$tree/src/core/c.c"
  touch "$tree/src/core/c.h"
  printf '#include <mpi.h>\n#include "core/c.h"\n' >"$tree/mpi/m.c"
  printf '#include "mpi/h5par.h"\n#include "nn/n.h"\n/* MPI_Send( in a comment */\n' >"$tree/src/nn/n.c"
  printf '#include "common.h"\n#include "shoal/shoal_mpi.h"\n' >"$tree/jobs/j.c"
}

expect() { # what must be said ("" when the tree is good)
  said=$("$here/layers.sh" "$tree")
  status=$?
  case "$1" in
  "") [ $status = 0 ] && return ;;
  *) [ $status != 0 ] && case "$said" in *"$1"*) return ;; esac ;;
  esac
  echo "expected '${1:-no complaint}', got status $status: $said"
  failed=1
}

fresh && expect ""
fresh && echo '#include "nn/n.h"' >>"$tree/src/core/c.c" && expect 'src/core/c.c:3: src/core may not include "nn/n.h"'
fresh && echo '#include "mpi/coll.h"' >>"$tree/src/nn/n.c" && expect 'src/nn/n.c:4: src/nn may not include "mpi/coll.h"'
fresh && echo '# include <hdf5.h>' >>"$tree/src/train/t.c" && expect 'src/train/t.c:1: MPI, HDF5'
fresh && echo '  pdgemm_(a);' >>"$tree/src/train/t.c" && expect 'src/train/t.c:1: MPI, HDF5'
fresh && echo '  MPI_Barrier(c);' >>"$tree/jobs/j.c" && expect 'jobs/j.c:3: MPI, HDF5'
fresh && echo '#include "core/c.h"' >>"$tree/jobs/j.c" && expect 'jobs/j.c:3: jobs may not include "core/c.h"'
fresh && echo '#include "shoal/shoal_mpi.h"' >>"$tree/src/core/c.c" && expect 'src/core may not include "shoal/shoal_mpi.h"'
fresh && mkdir "$tree/src/odd" && touch "$tree/src/odd/o.c" && expect 'src/odd/o.c:0: its folder does not stand in LAYERS'
fresh && sed -i 's/^src\/core public/src\/core public nn/' "$tree/LAYERS" && expect 'LAYERS:2: src/core may include nn'
[ $failed = 0 ] && echo "layers_test: every violation is found"
exit $failed
