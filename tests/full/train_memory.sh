#!/bin/sh
# tests/full/train_memory.sh SHOAL: training within less memory than a data set of 32 million events (0.5 GB) takes.
exec sh "$(dirname "$0")/../cli/test_train_memory.sh" "$1" 20000
