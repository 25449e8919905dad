#!/usr/bin/env python3
"""The same training work as `shoal bench --only step`, in plain PyTorch: a peer to measure against.

    python3 tests/peers/torch_sequence.py --model hstu --threads 2 [--data ml-1m.h5] [--steps 10] [--eval] [--compile]

Written from the equations in src/nn/{hstu,fuxi,sasrec}.h and src/nn/loss.h, with what a careful PyTorch user would do on a
CPU: batches padded to their longest sequence only, time buckets computed once a batch and shared by layers, item rows
normalised once a step, gradients of bias tables by bincount, the loss on valid tokens only, and malloc told to keep
memory instead of returning large temporaries to the system. Prints one JSON line; median over steps.

Needs PyTorch >= 1.13 and NumPy; h5py for --data. Without --data: sequences with MovieLens-1M's lengths and times.
"""
import argparse
import json
import math
import os
import resource
import statistics
import sys
import time

TUNED = {"MALLOC_TOP_PAD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
         "MALLOC_ARENA_MAX": "1"}
MODELS = {  # layers, heads, dqk, dv
    "hstu": (2, 1, 50, 50), "hstu-large": (8, 2, 25, 25), "sasrec": (2, 1, 50, 50), "fuxi-alpha": (2, 1, 50, 50),
    "fuxi-alpha-large": (8, 2, 25, 25), "fuxi-beta": (2, 1, 0, 50), "fuxi-beta-large": (8, 2, 0, 25)}
FFN = {"fuxi-alpha": 1, "fuxi-beta": 3}
D, WINDOW, N, BUCKETS, TEMPERATURE, DROPOUT = 50, 200, 211, 129, 0.05, 0.2


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=sorted(MODELS), default="hstu")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--data", help="a data set made by shoal prepare")
    p.add_argument("--steps", type=int, default=10, help="measured steps (10)")
    p.add_argument("--users", type=int, default=128, help="sequences of a batch (128)")
    p.add_argument("--negatives", type=int, default=128)
    p.add_argument("--loss", choices=["dense", "gather"],
                   help="logits of the negatives: picked out of all items' (dense: takes less memory, about as fast), or by "
                   "gathering rows (gather: the default with --compile, which fuses it and is 1.6 times as fast)")
    p.add_argument("--eval", action="store_true", help="full ranking of every user's last event, too")
    p.add_argument("--compile", action="store_true",
                   help="torch.compile (PyTorch 2 and a C++ compiler): model and loss, once for all lengths of a batch")
    a = p.parse_args()
    a.loss = a.loss or ("gather" if a.compile else "dense")
    return a


def with_tuned_malloc(threads):
    """malloc reads its settings when the process starts."""
    wanted = dict(TUNED, OMP_NUM_THREADS=str(threads))
    if all(os.environ.get(k) == v for k, v in wanted.items()):
        return
    os.execve(sys.executable, [sys.executable] + sys.argv, dict(os.environ, **wanted))


ARGS = arguments()
with_tuned_malloc(ARGS.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402


# Data: lists of (items, times), and the candidates.

def quantile_draw(rng, n, p, x):
    return np.exp(np.interp(rng.random(n), p, np.log(x)))


def synthetic():
    rng = np.random.default_rng(0)
    lengths = np.minimum(quantile_draw(rng, 6040, [0, .05, .1, .25, .5, .75, .9, .95, 1],
                                       [20, 23, 27, 44, 96, 208, 400, 556, 2314]).astype(int), WINDOW + 2)
    users = []
    for n in lengths:
        gaps = quantile_draw(rng, n, [0, .415, .5, .75, .9, .95, .98, .99, 1],
                             [.1, .9, 12, 30, 71, 160, 72500, 775000, 4e7]).astype(np.int64)
        users.append(((3883 * rng.random(n) ** 2.2).astype(np.int64), 956703932 + np.cumsum(gaps)))
    return users, np.arange(3883), 3883


def read(path):
    import h5py
    with h5py.File(path, "r") as f:
        offsets, item, when = f["sequence/offsets"][:], f["features/item"][:], f["features/time"][:]
        candidates, items = f["items/candidates"][:], len(f["items/count"])
    users = [(item[a:b][-WINDOW - 2:], when[a:b][-WINDOW - 2:]) for a, b in zip(offsets[:-1], offsets[1:]) if b - a > 2]
    return users, candidates, items


class Batch:
    """Input events [B x L] left-aligned, targets and time buckets; held-out events are not trained on."""

    def __init__(self, sequences, held_out, buckets, times):
        cut = [(i[:len(i) - held_out][-WINDOW - 1:], t[:len(t) - held_out][-WINDOW - 1:]) for i, t in sequences]
        self.length = torch.tensor([len(i) - 1 for i, _ in cut])
        B, L = len(cut), int(self.length.max())
        item, target = np.zeros((B, L), np.int64), np.zeros((B, L), np.int64)
        t, following = np.zeros((B, L), np.int64), np.zeros((B, L), np.int64)
        for b, (i, when) in enumerate(cut):
            n = len(i) - 1
            item[b, :n], target[b, :n] = i[:-1], i[1:]
            t[b, :n], following[b, :n] = when[:-1], when[1:]
        self.item, self.target = torch.from_numpy(item), torch.from_numpy(target)
        self.valid = torch.arange(L)[None, :] < self.length[:, None]
        self.causal = torch.ones(L, L, dtype=torch.bool).tril()
        self.tokens = int(self.valid.sum())
        self.bucket = self.since = None
        if buckets or times:
            since = torch.from_numpy(following)[:, :, None] - torch.from_numpy(t)[:, None, :]
            if buckets:
                log = since.abs().clamp_(min=1).float().log_()
                self.bucket = (log / 0.301).long().clamp_(max=BUCKETS - 1)
            else:
                self.since = since.clamp_(min=0).float()


# Layers.

class Lookup(torch.autograd.Function):
    """table[index] for a vector; the gradient by bincount, many times faster than the built-in one."""

    @staticmethod
    def forward(ctx, table, index):
        ctx.save_for_backward(index)
        ctx.size = len(table)
        return table[index]

    @staticmethod
    def backward(ctx, grad):
        index, = ctx.saved_tensors
        return torch.bincount(index.reshape(-1), grad.reshape(-1), ctx.size).to(grad.dtype), None


def parameter(*shape, std):
    return torch.nn.Parameter(torch.randn(*shape) * std)


def xavier(fan_in, fan_out):
    w = torch.empty(fan_in, fan_out)
    return torch.nn.Parameter(torch.nn.init.xavier_uniform_(w))


def rms(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def heads_of(x, heads):  # [B x L x H d] -> [B x H x L d]
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def together(x):  # the inverse
    return x.transpose(1, 2).flatten(2)


class Position(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = parameter(2 * N - 1, std=.02)
        at = torch.arange(N)
        self.register_buffer("index", N - 1 + at[None, :] - at[:, None])

    def forward(self, L):
        return Lookup.apply(self.w, self.index[:L, :L])


class HSTU(torch.nn.Module):
    def __init__(self, heads, dqk, dv):
        super().__init__()
        self.heads, self.split = heads, [heads * dv, heads * dv, heads * dqk, heads * dqk]
        self.uvqk, self.position, self.time = parameter(D, sum(self.split), std=.02), Position(), parameter(BUCKETS, std=.02)
        self.out = torch.nn.Linear(heads * dv, D)

    def forward(self, x, batch):
        u, v, q, k = F.silu(F.layer_norm(x, (D,), eps=1e-6) @ self.uvqk).split(self.split, -1)
        q, k, v = (heads_of(z, self.heads) for z in (q, k, v))
        bias = Lookup.apply(self.time, batch.bucket) + self.position(x.shape[1])
        weight = F.silu(q @ k.transpose(-1, -2) + bias[:, None]) * (batch.causal.float() / N)
        o = together(weight @ v)
        return x + self.out(F.dropout(u * F.layer_norm(o, o.shape[-1:], eps=1e-6), DROPOUT, self.training))


class FuXi(torch.nn.Module):
    def __init__(self, heads, dqk, dv, ffn):
        super().__init__()
        self.heads, self.alpha = heads, dqk > 0
        self.channels = 3 if self.alpha else 2
        self.split = [self.channels * heads * dv, heads * dv] + ([heads * dqk] * 2 if self.alpha else [])
        self.uvqk, self.position = parameter(D, sum(self.split), std=.02), Position()
        if self.alpha:
            self.time = parameter(BUCKETS, std=.02)
        else:
            self.a, self.b = torch.nn.Parameter(torch.tensor(.1)), torch.nn.Parameter(torch.tensor(.6))
        self.lin0 = torch.nn.Linear(self.channels * heads * dv, D)
        self.w1, self.w3, self.w2 = xavier(D, ffn * D), xavier(D, ffn * D), xavier(ffn * D, D)

    def maps(self, batch, L):
        if self.alpha:
            moment = Lookup.apply(self.time, batch.bucket)
        else:
            moment = self.a * torch.exp(-self.b * torch.log1p(batch.since))
        causal = batch.causal.float()
        return (self.position(L) * causal)[None, None], (moment * causal)[:, None]

    def forward(self, x, batch):
        u, v, *qk = F.silu(rms(x) @ self.uvqk).split(self.split, -1)
        v = heads_of(v, self.heads)
        c = [m @ v for m in self.maps(batch, x.shape[1])]
        if self.alpha:
            q, k = (heads_of(z, self.heads) for z in qk)
            c.append(F.silu(q @ k.transpose(-1, -2)) * (batch.causal.float() / N) @ v)
        a = u * rms(together(torch.cat(c, -1)))
        o = x + self.lin0(F.dropout(a, DROPOUT, self.training))
        g = F.dropout(rms(o), DROPOUT, self.training)
        return o + (F.silu(g @ self.w1) * (g @ self.w3)) @ self.w2


class SASRec(torch.nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = torch.nn.Linear(D, D), torch.nn.Linear(D, 2 * D), torch.nn.Linear(D, D)
        self.w1, self.w2 = torch.nn.Linear(D, D), torch.nn.Linear(D, D)

    def forward(self, x, batch):
        normed = F.layer_norm(x, (D,), eps=1e-8)
        q, (k, v) = heads_of(self.q(normed), self.heads), (heads_of(z, self.heads) for z in self.kv(x).split(D, -1))
        score = (q @ k.transpose(-1, -2) / math.sqrt(D // self.heads)).masked_fill(~batch.causal, -math.inf)
        m = together(F.dropout(score.softmax(-1), DROPOUT, self.training) @ v)
        z = F.layer_norm(normed + self.out(m), (D,), eps=1e-8)
        hidden = F.dropout(F.relu(self.w1(z)), DROPOUT, self.training)
        return z + F.dropout(self.w2(hidden), DROPOUT, self.training)


class Model(torch.nn.Module):
    def __init__(self, name, items):
        super().__init__()
        layers, heads, dqk, dv = MODELS[name]
        family = name.replace("-large", "")
        make = {"hstu": lambda: HSTU(heads, dqk, dv), "sasrec": lambda: SASRec(heads)}.get(
            family, lambda: FuXi(heads, dqk, dv, FFN[family]))
        self.rows = parameter(items, D, std=.02)
        self.position = parameter(N, D, std=math.sqrt(2 / (N + D)))
        self.layers = torch.nn.ModuleList(make() for _ in range(layers))

    def forward(self, batch):
        x = F.embedding(batch.item, self.rows) * math.sqrt(D) + self.position[:batch.item.shape[1]]
        x = F.dropout(x, DROPOUT, self.training)
        for layer in self.layers:
            x = layer(x, batch)
        return x


def sampled_softmax(model, hidden, target, candidates, R, dense):
    """Cross entropy of each token's target against R uniform negatives of its own, over cosines / temperature."""
    h = F.normalize(hidden, dim=-1, eps=1e-6)
    e = F.normalize(model.rows, dim=-1, eps=1e-6)
    negative = candidates[torch.randint(len(candidates), (len(h), R))]
    reference = torch.cat([target[:, None], negative], 1)
    if dense:
        logit = (h @ e.t()).gather(1, reference)
    else:
        logit = torch.bmm(F.embedding(reference, e), h[:, :, None])[:, :, 0]
    logit = logit / TEMPERATURE
    hit = F.pad(negative == target[:, None], (1, 0))
    return F.cross_entropy(logit.masked_fill(hit, -5e4), torch.zeros(len(h), dtype=torch.long))


def train(model, users, candidates, args, needs):
    order = np.random.default_rng(1).permutation(len(users))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(.9, .98), weight_decay=0)
    model.train()
    pace, loss, warm_up = [], None, 5 if args.compile else 2
    hidden_of, loss_of = model, sampled_softmax
    if args.compile:  # dynamic: batches differ in length and tokens
        hidden_of, loss_of = torch.compile(model, dynamic=True), torch.compile(sampled_softmax, dynamic=True)
    for step in range(warm_up + args.steps):
        chosen = order[np.arange(step * args.users, (step + 1) * args.users) % len(order)]
        start = time.perf_counter()
        batch = Batch([users[u] for u in chosen], 1, *needs)
        hidden = hidden_of(batch)[batch.valid]
        loss = loss_of(model, hidden, batch.target[batch.valid], candidates, args.negatives, args.loss == "dense")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step >= warm_up:
            pace.append(batch.tokens / (time.perf_counter() - start))
    return statistics.median(pace), float(loss.detach())


@torch.no_grad()
def evaluate(model, users, candidates, needs):
    """Rank of every user's last event among all candidates outside the window."""
    model.eval()
    start, hits = time.perf_counter(), 0
    rows = F.normalize(model.rows[candidates], dim=-1, eps=1e-6).t().contiguous()
    place = torch.full((len(model.rows),), -1)
    place[candidates] = torch.arange(len(candidates))
    for first in range(0, len(users), 128):
        batch = Batch(users[first:first + 128], 0, *needs)
        b, last = torch.arange(len(batch.length)), batch.length - 1
        score = F.normalize(model(batch)[b, last], dim=-1, eps=1e-6) @ rows
        seen = place[batch.item].masked_fill(~batch.valid, -1)
        inside = seen >= 0
        score[b[:, None].expand_as(seen)[inside], seen[inside]] = -math.inf
        target = place[batch.target[b, last]]
        hits += int(((score > score[b, target][:, None]).sum(1) < 10).sum())
    return len(users) / (time.perf_counter() - start), hits / len(users)


def main():
    torch.set_num_threads(ARGS.threads)
    np.finfo(np.float32), np.finfo(np.float64)  # NumPy looks at denormals when first asked
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    users, candidates, items = read(ARGS.data) if ARGS.data else synthetic()
    candidates = torch.from_numpy(np.asarray(candidates))
    needs = (ARGS.model.startswith(("hstu", "fuxi-alpha")), ARGS.model.startswith("fuxi-beta"))
    model = Model(ARGS.model, items)
    pace, loss = train(model, users, candidates, ARGS, needs)
    result = {"program": "torch " + torch.__version__ + (" compiled" if ARGS.compile else ""), "model": ARGS.model, "threads": ARGS.threads, "loss": round(loss, 4),
              "tokens_per_s": round(pace, 1)}
    if ARGS.eval:
        speed, hr = evaluate(model, users, candidates, needs)
        result.update(eval_users_per_s=round(speed, 1), hr10=round(hr, 4))
    result["resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


main()
