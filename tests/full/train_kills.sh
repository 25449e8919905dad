#!/bin/sh
# tests/full/train_kills.sh SHOAL: forty runs killed while they write checkpoints; each leaves a whole one.
exec sh "$(dirname "$0")/../cli/test_train.sh" "$1" 40
