"""The equations of HSTU, SASRec, FuXi-alpha and FuXi-beta in float64 NumPy: blocks forward and, by hand, backward, for
one user's L rows at a time. Written from the papers and the definitions of their published code; shares no code with
Shoal.

A: sizes and hyper-parameters; P, G: parameters and their gradients by name; c: what a block's forward leaves for its
backward. MODELS holds, by kind: forward, backward, parameter shapes, and which arrays of c golden files name.
"""
import math

import numpy as np


# ---- elements ----------------------------------------------------------------------------------------------------
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def silu(z):
    return z * sigmoid(z)


def silu_slope(z):
    s = sigmoid(z)
    return s * (1 + z * (1 - s))


erf = np.vectorize(math.erf, otypes=[float])


def gelu(z):
    return z * (1 + erf(z / math.sqrt(2))) / 2


def gelu_slope(z):
    return (1 + erf(z / math.sqrt(2))) / 2 + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def norm(x, eps, centre):
    """Layer norm (centre) or RMS norm over the last dimension, no scale or shift; and 1 / deviation."""
    c = x - x.mean(-1, keepdims=True) if centre else x
    r = 1 / np.sqrt((c * c).mean(-1, keepdims=True) + eps)
    return c * r, r


def norm_back(dy, y, r, centre):
    d = dy - y * (dy * y).mean(-1, keepdims=True)
    return r * (d - dy.mean(-1, keepdims=True)) if centre else r * d


def unit(x):
    """x / max(|x|, 1e-6); and the length used."""
    length = np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-6)
    return x / length, length


def unit_back(dy, y, length):
    free = length > 1e-6
    return (dy - np.where(free, y * (dy * y).sum(-1, keepdims=True), 0)) / length


def head(x, h, width):
    return x[:, h * width:(h + 1) * width]


# ---- relative bias: position and time ----------------------------------------------------------------------------
def bucket_bounds():
    """Smallest integers whose bucket trunc(log(float32 |dt|) / 0.301f) in float32 is at least 1 .. 128."""
    def bucket(dt):
        log = np.float32(math.log(np.int64(max(dt, 1)).astype(np.float32)))  # the correctly rounded logf
        return min(128, int(log / np.float32(0.301)))
    bounds = []
    for b in range(1, 129):
        lo, hi = 0, 2 ** 62
        while hi - lo > 1:
            mid = (lo + hi) // 2
            lo, hi = (lo, mid) if bucket(mid) >= b else (mid, hi)
        bounds.append(hi)
    return np.array(bounds, dtype=np.int64)


def buckets(next_time, time, bounds):
    return np.searchsorted(bounds, np.abs(next_time[:, None] - time[None, :]), side="right")


def causal(L):
    return np.tril(np.ones((L, L)))


def offsets(L, N):
    return N - 1 + np.arange(L)[None, :] - np.arange(L)[:, None]


# ---- HSTU --------------------------------------------------------------------------------------------------------
def hstu_forward(A, P, l, x, time, next_time, bounds):
    H, dq, dv, N, L = A["num_heads"], A["dqk"], A["dv"], A["N"], len(x)
    p = f"_hstu._attention_layers.{l}."
    c = {"L": L, "mask": causal(L), "bucket": buckets(next_time, time, bounds)}
    c["xn"], c["xr"] = norm(x, 1e-6, True)
    c["z"] = c["xn"] @ P[p + "_uvqk"]
    c["u"], c["v"], c["q"], c["k"] = np.split(silu(c["z"]), np.cumsum([H * dv, H * dv, H * dq]), 1)
    bias = P[p + "_rel_attn_bias._pos_w"][offsets(L, N)] + P[p + "_rel_attn_bias._ts_w"][c["bucket"]]
    c["s"] = [head(c["q"], h, dq) @ head(c["k"], h, dq).T + bias for h in range(H)]
    c["o"] = np.concatenate([silu(c["s"][h]) / N * c["mask"] @ head(c["v"], h, dv) for h in range(H)], 1)
    c["n"], c["r"] = norm(c["o"], 1e-6, True)
    c["y"] = c["u"] * c["n"]
    if A.get("concat_ua"):
        c["y"] = np.concatenate([c["u"], c["n"], c["y"]], 1)
    c["out"] = x + c["y"] @ P[p + "_o.weight"].T + P[p + "_o.bias"]
    return c


def hstu_backward(A, P, G, l, c, dout):
    H, dq, dv, N, L = A["num_heads"], A["dqk"], A["dv"], A["N"], c["L"]
    p = f"_hstu._attention_layers.{l}."
    G[p + "_o.weight"] += dout.T @ c["y"]
    G[p + "_o.bias"] += dout.sum(0)
    dy = dout @ P[p + "_o.weight"]
    w, dun = H * dv, dy[:, -H * dv:]
    du, dn = dun * c["n"], dun * c["u"]
    if A.get("concat_ua"):
        du, dn = du + dy[:, :w], dn + dy[:, w:2 * w]
    do = norm_back(dn, c["n"], c["r"], True)
    dv_, dq_, dk_, dbias = [], [], [], np.zeros((L, L))
    for h in range(H):
        g, s = head(do, h, dv), c["s"][h]
        ds = g @ head(c["v"], h, dv).T * c["mask"] / N * silu_slope(s)
        dbias += ds
        dv_.append((silu(s) / N * c["mask"]).T @ g)
        dq_.append(ds @ head(c["k"], h, dq))
        dk_.append(ds.T @ head(c["q"], h, dq))
    np.add.at(G[p + "_rel_attn_bias._pos_w"], offsets(L, N), dbias)
    np.add.at(G[p + "_rel_attn_bias._ts_w"], c["bucket"], dbias)
    dz = np.concatenate([du] + dv_ + dq_ + dk_, 1) * silu_slope(c["z"])
    G[p + "_uvqk"] += c["xn"].T @ dz
    return dout + norm_back(dz @ P[p + "_uvqk"].T, c["xn"], c["xr"], True)


HSTU_ARRAYS = {"normed_x_jagged": "xn", "v_jagged": "v", "attn_output_jagged": "o", "attn_output_normed_jagged": "n",
               "o_input_jagged": "y", "output_jagged": "out"}


def hstu_shapes(A):
    D, H, dq, dv, N = A["D"], A["num_heads"], A["dqk"], A["dv"], A["N"]
    for l in range(A["num_blocks"]):
        p = f"_hstu._attention_layers.{l}."
        yield p + "_uvqk", (D, 2 * H * (dv + dq)), 1 / math.sqrt(D)
        yield p + "_rel_attn_bias._pos_w", (2 * N - 1,), 0.5
        yield p + "_rel_attn_bias._ts_w", (129,), 0.5
        y = H * dv * (3 if A.get("concat_ua") else 1)
        yield p + "_o.weight", (D, y), 1 / math.sqrt(y)
        yield p + "_o.bias", (D,), 0.1


# ---- SASRec ------------------------------------------------------------------------------------------------------
def sasrec_forward(A, P, l, x, time, next_time, bounds):
    H, D, L = A["num_heads"], A["D"], len(x)
    a, f, d = f"attention_layers.{l}.", f"forward_layers.{l}._conv1d.", A["D"] // A["num_heads"]
    act = gelu if A["ffn_activation_fn"] == "gelu" else lambda z: np.maximum(z, 0)
    c = {"L": L, "x": x}
    c["qn"], c["qr"] = norm(x, 1e-8, True)
    wq, wk, wv = np.split(P[a + "in_proj_weight"], 3)
    bq, bk, bv = np.split(P[a + "in_proj_bias"], 3)
    c["q"], c["k"], c["v"] = c["qn"] @ wq.T + bq, x @ wk.T + bk, x @ wv.T + bv
    c["w"] = []
    for h in range(H):
        s = np.where(causal(L) > 0, head(c["q"], h, d) @ head(c["k"], h, d).T / math.sqrt(d), -np.inf)
        e = np.exp(s - s.max(1, keepdims=True))
        c["w"].append(e / e.sum(1, keepdims=True))
    c["o"] = np.concatenate([c["w"][h] @ head(c["v"], h, d) for h in range(H)], 1)
    c["m"] = c["o"] @ P[a + "out_proj.weight"].T + P[a + "out_proj.bias"]
    c["y"], c["yr"] = norm(c["qn"] + c["m"], 1e-8, True)
    c["f"] = c["y"] @ P[f + "0.weight"][:, :, 0].T + P[f + "0.bias"]
    c["g"] = act(c["f"])
    c["out"] = c["y"] + c["g"] @ P[f + "3.weight"][:, :, 0].T + P[f + "3.bias"]
    return c


def sasrec_backward(A, P, G, l, c, dout):
    H = A["num_heads"]
    a, f, d = f"attention_layers.{l}.", f"forward_layers.{l}._conv1d.", A["D"] // A["num_heads"]
    slope = gelu_slope if A["ffn_activation_fn"] == "gelu" else lambda z: (z > 0).astype(float)
    G[f + "3.weight"] += (dout.T @ c["g"])[:, :, None]
    G[f + "3.bias"] += dout.sum(0)
    df = dout @ P[f + "3.weight"][:, :, 0] * slope(c["f"])
    G[f + "0.weight"] += (df.T @ c["y"])[:, :, None]
    G[f + "0.bias"] += df.sum(0)
    dm = norm_back(dout + df @ P[f + "0.weight"][:, :, 0], c["y"], c["yr"], True)
    G[a + "out_proj.weight"] += dm.T @ c["o"]
    G[a + "out_proj.bias"] += dm.sum(0)
    do = dm @ P[a + "out_proj.weight"]
    dq, dk, dv = [], [], []
    for h in range(H):
        g, w = head(do, h, d), c["w"][h]
        dw = g @ head(c["v"], h, d).T
        ds = w * (dw - (dw * w).sum(1, keepdims=True)) / math.sqrt(d)
        dq.append(ds @ head(c["k"], h, d))
        dk.append(ds.T @ head(c["q"], h, d))
        dv.append(w.T @ g)
    dq, dk, dv = (np.concatenate(part, 1) for part in (dq, dk, dv))
    G[a + "in_proj_weight"] += np.concatenate([dq.T @ c["qn"], dk.T @ c["x"], dv.T @ c["x"]])
    G[a + "in_proj_bias"] += np.concatenate([dq.sum(0), dk.sum(0), dv.sum(0)])
    wq, wk, wv = np.split(P[a + "in_proj_weight"], 3)
    return norm_back(dm + dq @ wq, c["qn"], c["qr"], True) + dk @ wk + dv @ wv


SASREC_ARRAYS = {"mha_output": "m", "ffn_input": "y", "output": "out"}


def sasrec_shapes(A):
    D, F = A["D"], A["ffn_hidden_dim"]
    for l in range(A["num_blocks"]):
        a, f = f"attention_layers.{l}.", f"forward_layers.{l}._conv1d."
        yield a + "in_proj_weight", (3 * D, D), 1 / math.sqrt(D)
        yield a + "in_proj_bias", (3 * D,), 0.1
        yield a + "out_proj.weight", (D, D), 1 / math.sqrt(D)
        yield a + "out_proj.bias", (D,), 0.1
        yield f + "0.weight", (F, D, 1), 1 / math.sqrt(D)
        yield f + "0.bias", (F,), 0.1
        yield f + "3.weight", (D, F, 1), 1 / math.sqrt(F)
        yield f + "3.bias", (D,), 0.1


# ---- FuXi-alpha and FuXi-beta ------------------------------------------------------------------------------------
def time_function(A, P, p, dt):
    """f(dt), df/da, df/db of FuXi-beta's a (1 + dt)^-b or a exp(-e^b dt)."""
    if A["func_type"] == "pow":
        a, b = P[p + "_pow_a"][0], P[p + "_pow_b"][0]
        e = (1 + dt) ** -b
        return a * e, e, -a * e * np.log(1 + dt)
    a, b = P[p + "_exp_a"][0], P[p + "_exp_b"][0]
    e = np.exp(-math.exp(b) * dt)
    return a * e, e, -a * e * math.exp(b) * dt


def fuxi_forward(A, P, l, x, time, next_time, bounds):
    H, dq, dv, N, L = A["num_heads"], A["dqk"], A["dv"], A["N"], len(x)
    alpha = A["kind"] == "FuXi-alpha"
    C, p = (3 if alpha else 2), f"_fuxi._attention_layers.{l}."
    r, f = p + "_rel_attn_bias.", p + "_mffn."
    c = {"L": L, "mask": causal(L)}
    c["xn"], c["xr"] = norm(x, 1e-6, False)
    c["z"] = c["xn"] @ P[p + "_uvqk"]
    c["u"], c["v"], c["q"], c["k"] = np.split(silu(c["z"]), np.cumsum([C * H * dv, H * dv, H * dq if alpha else 0]), 1)
    maps = [P[r + "_pos_w"][offsets(L, N)] * c["mask"]]
    if alpha:
        c["bucket"] = buckets(next_time, time, bounds)
        maps.append(P[r + "_ts_w"][c["bucket"]] * c["mask"])
    else:
        value, c["da"], c["db"] = time_function(A, P, r, np.maximum(next_time[:, None] - time[None, :], 0).astype(float))
        maps.append(value * c["mask"])
    c["maps"], c["s"], channels = maps, [], []
    for h in range(H):
        own = list(maps)
        if alpha:
            c["s"].append(head(c["q"], h, dq) @ head(c["k"], h, dq).T)
            own.append(silu(c["s"][h]) / N * c["mask"])
        channels += [m @ head(c["v"], h, dv) for m in own]
    c["c"] = np.concatenate(channels, 1)
    c["n"], c["r"] = norm(c["c"], 1e-6, False)
    c["a"] = c["u"] * c["n"]
    c["lin0"] = c["a"] @ P[f + "lin0.weight"].T + P[f + "lin0.bias"]
    c["out"] = o = x + c["lin0"]
    if not A.get("ffn_single_stage"):
        c["g"], c["gr"] = norm(o, 1e-6, False)
        c["f1"], c["f3"] = c["g"] @ P[f + "lin1.weight"].T, c["g"] @ P[f + "lin3.weight"].T
        c["hidden"] = silu(c["f1"]) * c["f3"]
        c["out"] = o + c["hidden"] @ P[f + "lin2.weight"].T
    return c


def fuxi_backward(A, P, G, l, c, dout):
    H, dq, dv, N, L = A["num_heads"], A["dqk"], A["dv"], A["N"], c["L"]
    alpha = A["kind"] == "FuXi-alpha"
    C, p = (3 if alpha else 2), f"_fuxi._attention_layers.{l}."
    r, f = p + "_rel_attn_bias.", p + "_mffn."
    if "g" in c:
        G[f + "lin2.weight"] += dout.T @ c["hidden"]
        dh = dout @ P[f + "lin2.weight"]
        d1, d3 = dh * c["f3"] * silu_slope(c["f1"]), dh * silu(c["f1"])
        G[f + "lin1.weight"] += d1.T @ c["g"]
        G[f + "lin3.weight"] += d3.T @ c["g"]
        dout = dout + norm_back(d1 @ P[f + "lin1.weight"] + d3 @ P[f + "lin3.weight"], c["g"], c["gr"], False)
    G[f + "lin0.weight"] += dout.T @ c["a"]
    G[f + "lin0.bias"] += dout.sum(0)
    da = dout @ P[f + "lin0.weight"]
    dc = norm_back(da * c["u"], c["n"], c["r"], False)
    dv_, dq_, dk_, dmaps = [], [], [], [np.zeros((L, L)), np.zeros((L, L))]
    for h in range(H):
        v = head(c["v"], h, dv)
        g = [head(dc, h * C + ch, dv) for ch in range(C)]
        dvh = sum(m.T @ g[ch] for ch, m in enumerate(c["maps"]))
        for ch in range(2):
            dmaps[ch] += g[ch] @ v.T * c["mask"]
        if alpha:
            s = c["s"][h]
            ds = g[2] @ v.T * c["mask"] / N * silu_slope(s)
            dvh = dvh + (silu(s) / N * c["mask"]).T @ g[2]
            dq_.append(ds @ head(c["k"], h, dq))
            dk_.append(ds.T @ head(c["q"], h, dq))
        dv_.append(dvh)
    np.add.at(G[r + "_pos_w"], offsets(L, N), dmaps[0])
    if alpha:
        np.add.at(G[r + "_ts_w"], c["bucket"], dmaps[1])
    else:
        G[r + f"_{A['func_type']}_a"] += (dmaps[1] * c["da"]).sum()
        G[r + f"_{A['func_type']}_b"] += (dmaps[1] * c["db"]).sum()
    dz = np.concatenate([da * c["n"]] + dv_ + dq_ + dk_, 1) * silu_slope(c["z"])
    G[p + "_uvqk"] += c["xn"].T @ dz
    return dout + norm_back(dz @ P[p + "_uvqk"].T, c["xn"], c["xr"], False)


FUXI_ARRAYS = {"normed_x_jagged": "xn", "v_jagged": "v", "attn_output_jagged": "c", "attn_output_normed_jagged": "n",
               "lin0_input_jagged": "a", "lin0_output_jagged": "lin0", "ffn_input_jagged": "g",
               "ffn_hidden_jagged": "hidden", "output_jagged": "out"}


def fuxi_shapes(A):
    D, H, dq, dv, N, F = (A[k] for k in ("D", "num_heads", "dqk", "dv", "N", "ffn_hidden_dim"))
    alpha = A["kind"] == "FuXi-alpha"
    C = 3 if alpha else 2
    for l in range(A["num_blocks"]):
        p = f"_fuxi._attention_layers.{l}."
        yield p + "_uvqk", (D, (C + 1) * H * dv + (2 * H * dq if alpha else 0)), 1 / math.sqrt(D)
        yield p + "_rel_attn_bias._pos_w", (2 * N - 1,), 0.5
        if alpha:
            yield p + "_rel_attn_bias._ts_w", (129,), 0.5
        else:
            yield p + f"_rel_attn_bias._{A['func_type']}_a", (1,), 0.5
            yield p + f"_rel_attn_bias._{A['func_type']}_b", (1,), 0.5
        yield p + "_mffn.lin0.weight", (D, C * H * dv), 1 / math.sqrt(C * H * dv)
        yield p + "_mffn.lin0.bias", (D,), 0.1
        if not A.get("ffn_single_stage"):
            yield p + "_mffn.lin1.weight", (F, D), 1 / math.sqrt(D)
            yield p + "_mffn.lin3.weight", (F, D), 1 / math.sqrt(D)
            yield p + "_mffn.lin2.weight", (D, F), 1 / math.sqrt(F)


MODELS = {"HSTU": (hstu_forward, hstu_backward, hstu_shapes, HSTU_ARRAYS),
          "SASRec": (sasrec_forward, sasrec_backward, sasrec_shapes, SASREC_ARRAYS),
          "FuXi-alpha": (fuxi_forward, fuxi_backward, fuxi_shapes, FUXI_ARRAYS),
          "FuXi-beta": (fuxi_forward, fuxi_backward, fuxi_shapes, FUXI_ARRAYS)}
