#!/usr/bin/env python3
"""Popularity and first-order Markov baselines on a Shoal data set, counted in NumPy, independently of the C code.

    python3 tests/peers/synth_baselines.py synth.h5

Leave-one-out as in evaluation: the last event of each user is ranked among all candidates that are not in the user's
history; counts come from the other events. Prints HR@10 and NDCG@10, and their share of the stored optimum when the
set has one. Needs python3-numpy and python3-h5py.
"""
import sys

import h5py
import numpy as np


def main(path):
    with h5py.File(path, "r") as f:
        offsets, item = f["sequence/offsets"][:], f["features/item"][:]
        candidates, items = f["items/candidates"][:], len(f["items/count"])
        best = dict(f["optimum"].attrs) if "optimum" in f else {}
    last = offsets[1:] - 1
    popularity = np.bincount(np.delete(item, last), minlength=items).astype(float)
    follows = np.ones(len(item), bool)  # event e and e+1 are a training transition
    follows[last] = follows[last - 1] = False
    source = np.flatnonzero(follows)
    order = np.argsort(item[source], kind="stable")
    rows, target = item[source][order], item[source + 1][order]
    bounds = np.searchsorted(rows, np.arange(items + 1))
    tie = popularity / (popularity.sum() + 1)  # below one count: ranks what never followed
    allowed = np.full(items, -np.inf)
    allowed[candidates] = 0
    total = {name: np.zeros(2) for name in ("popularity", "markov")}
    users = 0
    for first, end in zip(offsets[:-1], offsets[1:]):
        if end - first < 2:
            continue
        users += 1
        history, wanted = item[first:end - 1], item[end - 1]
        before = history[-1]
        counts = np.bincount(target[bounds[before]:bounds[before + 1]], minlength=items).astype(float)
        for name, score in (("popularity", popularity), ("markov", np.where(counts > 0, counts, tie))):
            score = score + allowed
            score[history] = -np.inf
            rank = 1 + np.sum(score > score[wanted]) + np.sum(score[:wanted] == score[wanted])
            if score[wanted] > -np.inf and rank <= 10:
                total[name] += (1, 1 / np.log2(rank + 1))
    for name, (hits, gain) in total.items():
        line = f"{name:11s} HR@10 {hits / users:.4f}  NDCG@10 {gain / users:.4f}"
        if best:
            line += f"   of the optimum {hits / users / best['hr@10']:.3f} {gain / users / best['ndcg@10']:.3f}"
        print(line)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
