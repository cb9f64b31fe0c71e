"""Causal attention of packed sequences."""

import inspect
import math

import torch
import torch.nn.functional as F

from .device import DEVICE, Absent, normals, places, relative


def attention(case, peer):
    lengths, heads, width = case["lengths"], case["heads"], case["head_dim"]
    q, k, v = (normals(sum(lengths), heads, width, dtype=torch.bfloat16) for _ in range(3))
    longest = max(lengths)
    if peer == "varlen":
        if DEVICE != "cuda":
            raise Absent("varlen_attn is for cards")
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError as e:
            raise Absent(str(e)) from e
        newer = "window_size" in inspect.signature(varlen_attn).parameters
        causal = {"window_size": (-1, 0)} if newer else {"is_causal": True}
        begins = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).to(torch.int32)
        run = lambda turn: varlen_attn(q, k, v, begins, begins, longest, longest, **causal)
        return run, attention_error(run(0).split(lengths), q, k, v, lengths)
    pad = lambda x: torch.nn.utils.rnn.pad_sequence(x.split(lengths), batch_first=True).transpose(1, 2).contiguous()
    padded = [pad(x) for x in (q, k, v)]
    run = lambda turn: F.scaled_dot_product_attention(*padded, is_causal=True)
    out = run(0).transpose(1, 2)
    return run, attention_error([rows[:n] for rows, n in zip(out, lengths)], q, k, v, lengths)


def attention_error(found, q, k, v, lengths):
    """Of some rows of every sequence."""
    pairs = []
    for out, q, k, v in zip(found, q.split(lengths), k.split(lengths), v.split(lengths)):
        for row in places(len(q), 5).tolist():
            seen = [x[: row + 1].double() for x in (k, v)]
            scores = torch.einsum("hd,nhd->hn", q[row].double(), seen[0]) / math.sqrt(q.shape[-1])
            pairs.append((out[row], torch.einsum("hn,nhd->hd", scores.softmax(-1), seen[1])))
    return relative(torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]))
