#!/bin/sh
# tests/full/slurm.sh SHOAL: slurm/train.sbatch on a real Slurm of two nodes made on this machine.
exec sh "$(dirname "$0")/../slurm/train.sh" "$@"
