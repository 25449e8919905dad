"""Lookups and updates of table rows in FBGEMM on a CPU: the work of `shoal bench --only table`.

4 Mi rows of 64 floats, 64 batches of 16 Ki distinct random rows; forward, then backward with the optimiser fused into it.
Best of four rounds. Needs fbgemm-gpu-cpu and the PyTorch it is built for:

    python3 -m venv venv && venv/bin/pip install fbgemm-gpu-cpu==1.9.0 torch==2.14.1 numpy
    venv/bin/python tests/peers/fbgemm_rows.py --threads 1
"""

import argparse
import time

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    EmbeddingLocation,
    OptimType,
    PoolingMode,
    SplitTableBatchedEmbeddingBagsCodegen,
)

ROWS, WIDTH, BATCH, BATCHES, ROUNDS = 1 << 22, 64, 1 << 14, 64, 4


def measure(optimizer, keys):
    """Best seconds of a round of lookups, and of backward passes with updates."""
    table = SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, WIDTH, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=optimizer,
        learning_rate=1e-6,
        eps=1e-8,
        pooling_mode=PoolingMode.NONE,
    )
    table.init_embedding_weights_uniform(-0.02, 0.02)
    offsets = torch.arange(BATCH + 1)
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        lookup = backward = 0.0
        for batch in keys:
            start = time.perf_counter()
            out = table(batch, offsets)
            lookup += time.perf_counter() - start
            gradient = torch.full_like(out, 1e-3)
            start = time.perf_counter()
            out.backward(gradient)
            backward += time.perf_counter() - start
        best = [min(best[0], lookup), min(best[1], backward)]
    return best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    keys = torch.randperm(ROWS)[: BATCH * BATCHES].view(BATCHES, BATCH)
    million = BATCH * BATCHES / 1e6
    for optimizer, name in ((OptimType.EXACT_SGD, "SGD"), (OptimType.EXACT_ROWWISE_ADAGRAD, "row-wise AdaGrad")):
        lookup, backward = measure(optimizer, keys)
        print(f"{name}: lookup {million / lookup:.1f}, backward with update {million / backward:.1f} M rows/s")


if __name__ == "__main__":
    main()
