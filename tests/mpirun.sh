#!/bin/sh
# tests/mpirun.sh N PROGRAM ARGS...: run on N ranks of this machine, more than it has cores if need be.
# SHOAL_MPI=mpich: programs of the preset mpich.
# OMP_NUM_THREADS defaults to 1: spinning threads on a shared core cost ten times the work.
n=$1
shift
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY=passive
limit=${SHOAL_MPI_TIMEOUT:-280}
if [ -n "${SHOAL_MPI:-}" ]; then
  # shellcheck disable=SC2086 # two words or none
  exec timeout "$limit" "mpiexec.$SHOAL_MPI" ${SHOAL_MPI_PRELOAD:+-genv LD_PRELOAD $SHOAL_MPI_PRELOAD} -n "$n" "$@"
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none
exec timeout "$limit" mpirun -n "$n" --oversubscribe "$@"
