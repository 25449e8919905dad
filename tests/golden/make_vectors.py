#!/usr/bin/env python3
"""Makes tests/golden/vectors/*.h5: small golden vectors of HSTU, SASRec, FuXi-alpha and FuXi-beta in float64.

A restatement of the published equations (equations.py) in NumPy, forward and hand-written backward, one user at a time,
without any code of Shoal or of the models' authors. test_golden.c compares Shoal's float path with what it writes.

    make_vectors.py                    write the files in vectors/ beside this program
    make_vectors.py --check FILE...    recompute other files of the layout below, e.g. those made with the authors' code,
                                       and print the largest difference; fails above 1e-12

Notation: B users, N padded length (history + gr_output_length + 1), L history length of a user, D width, H heads.
Rows of a user are its L history items, oldest first; row i predicts item i + 1, the last row the target.

Layout (HDF5; one group a case, its attributes are sizes and hyper-parameters):
  /bucket_lower_bound_f32             smallest |dt| of time buckets 1 .. 128 (HSTU, FuXi-alpha)
  <case>/all_item_ids                 candidates
  <case>/inputs{0,1,2}/               past_lengths (B), past_ids_train (B,N) with the target behind the history,
                                      past_ids_eval (B,N), timestamps (B,N), target_ids (B), neg_ids (sum L, R)
  <case>/f64/params_init/<name>       parameters under the names of the authors' code; Linear weights are out x in
  <case>/f64/step{0,1,2}/             one AdamW step each:
     loss, input_embeddings_after_preproc, seq_embeddings (normalised), grad_seq_embeddings   (B,N,D)
     pos_logits_before_temperature (sum L,1), neg_logits_before_temperature (sum L,R)
     layer{l}/                        outputs inside a block: *_jagged (sum L, .), others padded (B,N,.)
     grads/, exp_avg/, exp_avg_sq/, params_after/<name>
  <case>/f64/eval/                    after the three steps, on inputs0: user_embeddings, item_embeddings_normalised,
                                      topk_ids, topk_scores (all candidates, best first), rank (1 = best)
"""
import math
import os
import sys

import h5py
import numpy as np

from equations import MODELS, bucket_bounds, unit, unit_back

ITEM, POSITION = "_embedding_module._item_emb.weight", "_input_features_preproc._pos_emb.weight"


# ---- one training step and the evaluation ------------------------------------------------------------------------
def encode(A, P, ids, ts, L, bounds):
    """Hidden states of one user's L history items, and the caches of the blocks."""
    x = P[ITEM][ids[:L]] * math.sqrt(A["D"]) + P[POSITION][:L]
    caches = []
    for l in range(A["num_blocks"]):
        caches.append(MODELS[A["kind"]][0](A, P, l, x if l == 0 else caches[-1]["out"], ts[:L], ts[1:L + 1], bounds))
    return x, caches


def padded(rows, lengths, N):
    out = np.zeros((len(lengths), N, rows.shape[1]))
    start = 0
    for b, L in enumerate(lengths):
        out[b, :L] = rows[start:start + L]
        start += L
    return out


def loss_of(A, y, P, positive, negative, tokens):
    """Sum of the users' token losses over all tokens; logits; gradients of y and, by rows, of the item table."""
    pe, pl = unit(P[ITEM][positive])
    ne, nl = unit(P[ITEM][negative])
    plus, minus = (y * pe).sum(1), np.einsum("ld,lrd->lr", y, ne)
    hit = negative == positive[:, None]
    z = np.concatenate([plus[:, None] / A["T"], np.where(hit, -5e4, minus / A["T"])], 1)
    top = z.max(1, keepdims=True)
    e = np.exp(z - top)
    loss = (top[:, 0] + np.log(e.sum(1)) - z[:, 0]).sum() / tokens
    dz = e / e.sum(1, keepdims=True)
    dz[:, 0] -= 1
    dz /= tokens * A["T"]
    dn = np.where(hit, 0, dz[:, 1:])
    dy = dz[:, :1] * pe + np.einsum("lr,lrd->ld", dn, ne)
    dpe, dne = unit_back(dz[:, :1] * y, pe, pl), unit_back(dn[:, :, None] * y[:, None, :], ne, nl)
    return loss, plus, minus, dy, dpe, dne


def train_step(A, P, I, bounds):
    """Forward and backward of one batch: everything a step's group holds but the optimiser's part, and the gradients."""
    D, N, lengths, tokens = A["D"], A["N"], I["past_lengths"], int(I["past_lengths"].sum())
    backward, arrays = MODELS[A["kind"]][1], MODELS[A["kind"]][3]
    G = {n: np.zeros_like(p) for n, p in P.items()}
    rows = {k: [] for k in ("input", "y", "dy", "plus", "minus")}
    layers = [{k: [] for k in arrays} for _ in range(A["num_blocks"])]
    time_buckets = [[] for _ in range(A["num_blocks"])]
    loss, start = 0.0, 0
    for b, L in enumerate(int(n) for n in lengths):
        ids, ts = I["past_ids_train"][b], I["timestamps"][b]
        x, caches = encode(A, P, ids, ts, L, bounds)
        y, length = unit(caches[-1]["out"])
        positive, negative = ids[1:L + 1], I["neg_ids"][start:start + L]
        part, plus, minus, dy, dpe, dne = loss_of(A, y, P, positive, negative, tokens)
        loss += part
        np.add.at(G[ITEM], positive, dpe)
        np.add.at(G[ITEM], negative, dne)
        d = unit_back(dy, y, length)
        for l in reversed(range(A["num_blocks"])):
            d = backward(A, P, G, l, caches[l], d)
        np.add.at(G[ITEM], ids[:L], d * math.sqrt(D))
        G[POSITION][:L] += d
        for k, v in zip(rows, (x, y, dy, plus[:, None], minus)):
            rows[k].append(v)
        for l, c in enumerate(caches):
            for k, v in arrays.items():
                layers[l][k] += [c[v]] if v in c else []
            if "bucket" in c:
                time_buckets[l].append(np.zeros((N, N), np.int64))
                time_buckets[l][-1][:L, :L] = c["bucket"] * (c["mask"] > 0)
        start += L
    rows = {k: np.concatenate(v) for k, v in rows.items()}
    out = {"loss": np.float64(loss), "input_embeddings_after_preproc": padded(rows["input"], lengths, N),
           "seq_embeddings": padded(rows["y"], lengths, N), "grad_seq_embeddings": padded(rows["dy"], lengths, N),
           "pos_logits_before_temperature": rows["plus"], "neg_logits_before_temperature": rows["minus"]}
    for l, members in enumerate(layers):
        for k, v in members.items():
            if v:
                v = np.concatenate(v)
                out[f"layer{l}/{k}"] = v if k.endswith("_jagged") else padded(v, lengths, N)
        if time_buckets[l]:
            out[f"layer{l}/time_buckets"] = np.stack(time_buckets[l])
    return out, G


def adamw(A, P, M, V, G, t):
    b1, b2 = A["betas"]
    for n in P:
        P[n] = P[n] * (1 - A["lr"] * A["wd"])
        M[n] = b1 * M[n] + (1 - b1) * G[n]
        V[n] = b2 * V[n] + (1 - b2) * G[n] ** 2
        P[n] = P[n] - A["lr"] * (M[n] / (1 - b1 ** t)) / (np.sqrt(V[n] / (1 - b2 ** t)) + A["adam_eps"])


def evaluate(A, P, I, candidates, bounds):
    e = unit(P[ITEM][candidates])[0]
    users = []
    for b, L in enumerate(int(n) for n in I["past_lengths"]):
        users.append(unit(encode(A, P, I["past_ids_eval"][b], I["timestamps"][b], L, bounds)[1][-1]["out"][-1])[0])
    scores = np.stack(users) @ e.T
    order = np.argsort(-scores, 1, kind="stable")
    rank = [1 + int(np.where(candidates[o] == t)[0][0]) for o, t in zip(order, I["target_ids"])]
    return {"user_embeddings": np.stack(users), "item_embeddings_normalised": e, "item_ids": candidates,
            "topk_ids": candidates[order], "topk_scores": np.take_along_axis(scores, order, 1),
            "rank": np.array(rank, dtype=np.int64)}


def case_results(A, P, inputs, candidates, bounds, key_bias_gradient=None):
    """Yields (path below f64/, array) of a whole case. `key_bias_gradient(step, name)` replaces the rounding noise that
    is SASRec's key bias gradient (truly 0), which Adam would blow up to a whole step, where another run is compared."""
    P = {n: p.copy() for n, p in P.items()}
    M, V = ({n: np.zeros_like(p) for n, p in P.items()} for _ in range(2))
    for s, I in enumerate(inputs):
        out, G = train_step(A, P, I, bounds)
        for k, v in out.items():
            yield f"step{s}/{k}", v
        for n in P:
            if n.endswith("in_proj_bias"):
                D = A["D"]
                G[n][D:2 * D] = key_bias_gradient(s, n)[D:2 * D] if key_bias_gradient else 0
            yield f"step{s}/grads/{n}", G[n]
        adamw(A, P, M, V, G, s + 1)
        for n in P:
            yield f"step{s}/exp_avg/{n}", M[n]
            yield f"step{s}/exp_avg_sq/{n}", V[n]
            yield f"step{s}/params_after/{n}", P[n]
    for k, v in evaluate(A, P, inputs[0], candidates, bounds).items():
        yield f"eval/{k}", v


# ---- checking other files ----------------------------------------------------------------------------------------
def read_attributes(group):
    A = {k: (v.item() if isinstance(v, np.generic) else v) for k, v in group.attrs.items()}
    A = {k: (v.decode() if isinstance(v, bytes) else v) for k, v in A.items()}
    A["betas"] = tuple(float(b) for b in A["betas"])
    return A


def check(path):
    worst, where, count = 0.0, "", 0
    with h5py.File(path, "r") as file:
        bounds = bucket_bounds()
        if "bucket_lower_bound_f32" in file:
            assert np.array_equal(bounds, file["bucket_lower_bound_f32"][:]), "bucket bounds differ"
        for case in (k for k in file if isinstance(file[k], h5py.Group)):
            g, A = file[case], read_attributes(file[case])
            ref = g["f64"]
            P = {n: d[()] for n, d in ref["params_init"].items()}
            inputs = [{k: d[()] for k, d in g[f"inputs{s}"].items()} for s in range(3)]
            theirs = lambda s, n: ref[f"step{s}/grads/{n}"][()]
            for k, v in case_results(A, P, inputs, g["all_item_ids"][()], bounds, theirs):
                if k.endswith(LEFT_OUT) and k not in ref:
                    continue
                want = ref[k][()]
                if k.endswith("time_buckets"):
                    want = want * (v > 0)
                elif k.startswith("step") and np.shape(want)[:2] == (len(inputs[int(k[4])]["past_lengths"]), A["N"]):
                    for b, L in enumerate(inputs[int(k[4])]["past_lengths"]):
                        want[b, L:] = 0  # the target's own position: nothing depends on it
                assert np.shape(v) == np.shape(want), (k, np.shape(v), np.shape(want))
                error = np.max(np.abs(v - want)) / max(1e-300, 1.0, np.max(np.abs(want)))
                count += 1
                if error > worst:
                    worst, where = error, f"{case}/f64/{k}"
    print(f"{path}: {count} arrays, largest difference {worst:.1e} ({where})")
    return worst <= 1e-12


# ---- our own files -----------------------------------------------------------------------------------------------
def make_inputs(rng, A, ids, lengths):
    """A batch with repeated items, equal times, gaps from seconds to decades, and negatives that are the positive."""
    N, B = A["N"], len(lengths)
    items, ts, seen = np.zeros((B, N), np.int64), np.zeros((B, N), np.int64), np.zeros((B, N), np.int64)
    for b, L in enumerate(lengths):
        items[b, :L + 1] = rng.choice(ids, L + 1)
        longest = 3 if A.get("func_type") == "exp" else 20  # a fast exponential sees seconds only
        gaps = np.exp(rng.uniform(0, longest, L + 1)).astype(np.int64) * (rng.random(L + 1) > 0.3)
        ts[b, :L + 1] = 900_000_000 + np.cumsum(gaps)
        seen[b, :L] = items[b, :L]
    positive = np.concatenate([items[b, 1:L + 1] for b, L in enumerate(lengths)])
    negatives = rng.choice(ids, (len(positive), A["R"]))
    hits = rng.random(negatives.shape) < 0.1
    return {"past_lengths": np.array(lengths, np.int64), "past_ids_train": items, "past_ids_eval": seen,
            "timestamps": ts, "target_ids": np.array([items[b, L] for b, L in enumerate(lengths)]),
            "neg_ids": np.where(hits, positive[:, None], negatives)}


def make_params(rng, A):
    """Weights much wider than a fresh model's, so that every term of the equations matters; few digits, exact in float."""
    P = {ITEM: rng.normal(0, 1 / math.sqrt(A["D"]), (A["num_items"] + 1, A["D"])),
         POSITION: rng.normal(0, 0.5, (A["N"], A["D"]))}
    for name, shape, std in MODELS[A["kind"]][2](A):
        P[name] = rng.normal(0, std, shape)
    return {n: np.round(p * 512) / 512 for n, p in P.items()}


# Sizes are chosen so that nothing coincides (D, H dv, H dqk, F, N, L all differ), and `long` is longer than the blocks
# of tokens and keys that kernels cut work into.
SMALL = dict(D=6, num_heads=2, dqk=2, dv=4, N=9, gr_output_length=1, num_blocks=2, num_items=13, R=3, T=0.1, lr=2e-3,
             wd=1e-2, betas=(0.9, 0.98), adam_eps=1e-8)
TINY = dict(SMALL, D=5, dqk=1, dv=2, num_blocks=1)
LONG = dict(SMALL, D=4, num_heads=2, dqk=2, dv=3, N=70, gr_output_length=3, num_blocks=1, T=0.05, lr=1e-3, wd=0.0)
LENGTHS = {"small": [[7, 1, 4], [3, 7, 2], [1, 6]], "long": [[66, 1, 3], [17], [2, 9]]}
# Not written: what is computed from them shows their errors.
LEFT_OUT = ("normed_x_jagged", "v_jagged", "ffn_hidden_jagged", "layer1/time_buckets", "eval/item_ids")
FILES = {
    "hstu_small": {"small": dict(SMALL, kind="HSTU"), "concat_ua": dict(TINY, kind="HSTU", concat_ua=True),
                   "long": dict(LONG, kind="HSTU")},
    "sasrec_small": {"small": dict(SMALL, kind="SASRec", ffn_hidden_dim=5, ffn_activation_fn="gelu"),
                     "long": dict(LONG, kind="SASRec", num_heads=1, ffn_hidden_dim=9, ffn_activation_fn="relu")},
    "fuxi_alpha_small": {"small": dict(SMALL, kind="FuXi-alpha", ffn_hidden_dim=5, ffn_single_stage=False),
                         "single_stage": dict(TINY, kind="FuXi-alpha", ffn_hidden_dim=6,
                                              ffn_single_stage=True),
                         "long": dict(LONG, kind="FuXi-alpha", ffn_hidden_dim=5, ffn_single_stage=False)},
    "fuxi_beta_small": {"small": dict(SMALL, kind="FuXi-beta", ffn_hidden_dim=5, func_type="pow"),
                        "exp": dict(TINY, kind="FuXi-beta", ffn_hidden_dim=6, func_type="exp"),
                        "long": dict(LONG, kind="FuXi-beta", ffn_hidden_dim=5, func_type="pow")}}


def write(group, path, v):
    """Padding, buckets never met and short numbers make most arrays compressible."""
    packed = dict(compression="gzip", compression_opts=9, shuffle=True) if np.size(v) > 64 else {}
    group.create_dataset(path, data=v.astype(np.int32) if np.asarray(v).dtype == np.int64 else v, **packed)


def draw_case(A, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    ids = np.sort(rng.choice(np.arange(1, A["num_items"] + 1), A["num_items"] * 3 // 4, replace=False)).astype(np.int64)
    P = make_params(rng, A)
    inputs = [make_inputs(rng, A, ids, lengths) for lengths in LENGTHS["long" if A["N"] > 64 else "small"]]
    return ids, P, inputs, dict(case_results(A, P, inputs, ids, bucket_bounds()))


def fit_for_floats(A, results):
    """Adam divides by the root of the second moment: where that is not far above eps, but not 0, float arithmetic cannot
    determine the step."""
    return all(not np.any((v > 0) & (np.sqrt(v / (1 - A["betas"][1] ** (int(k[4]) + 1))) < 100 * A["adam_eps"]))
               for k, v in results.items() if "/exp_avg_sq/" in k)


def write_case(group, A, seed):
    ids, P, inputs, results = draw_case(A, seed)
    while not fit_for_floats(A, results):
        seed += 1000
        ids, P, inputs, results = draw_case(A, seed)
    group.attrs["seed"] = seed
    for k, v in A.items():
        if A["kind"] == "SASRec" and k in ("dqk", "dv"):
            continue  # its heads are D / H wide
        group.attrs[k] = np.bytes_(v) if isinstance(v, str) else v
    group["all_item_ids"] = ids.astype(np.int32)
    for s, I in enumerate(inputs):
        for k, v in I.items():
            group[f"inputs{s}/{k}"] = v if k == "timestamps" else v.astype(np.int32)
    for n, p in P.items():
        write(group, f"f64/params_init/{n}", p)
    for k, v in results.items():
        if not k.endswith(LEFT_OUT):
            write(group, f"f64/{k}", v.astype(np.uint8) if k.endswith("time_buckets") else v)


def write_all(folder):
    os.makedirs(folder, exist_ok=True)
    total, seed = 0, 1
    for name, cases in FILES.items():
        path = os.path.join(folder, name + ".h5")
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            if name.startswith(("hstu", "fuxi_alpha")):
                file["bucket_lower_bound_f32"] = bucket_bounds()
            for case, A in cases.items():
                write_case(file.create_group(case), A, seed)
                seed += 1
        total += os.path.getsize(path)
        print(f"{path}: {os.path.getsize(path)} bytes")
    print(f"{total} bytes in all")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        sys.exit(not all([check(path) for path in sys.argv[2:]]))
    write_all(os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors"))
