"""Causal attention of packed sequences."""

import inspect
import math

import torch
import torch.nn.functional as F

from .device import DEVICE, Absent, normals, places, relative


def operands(case):
    """Queries, keys, values."""
    shape = sum(case["lengths"]), case["heads"], case["head_dim"]
    return [normals(*shape, dtype=torch.bfloat16) for _ in range(3)]


def varlen(lengths):
    """Attention of packed queries, keys and values by PyTorch's own kernel."""
    if DEVICE != "cuda":
        raise Absent("varlen_attn is for cards")
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as e:
        raise Absent(str(e)) from e
    newer = "window_size" in inspect.signature(varlen_attn).parameters
    causal = {"window_size": (-1, 0)} if newer else {"is_causal": True}
    begins = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).to(torch.int32)
    longest = max(lengths)
    return lambda q, k, v: varlen_attn(q, k, v, begins, begins, longest, longest, **causal)


def pad(x, lengths):
    """Sequences beside each other, heads first."""
    return torch.nn.utils.rnn.pad_sequence(x.split(lengths), batch_first=True).transpose(1, 2).contiguous()


def packed(x, lengths):
    """The rows of sequences that were padded."""
    return torch.cat([rows[:n] for rows, n in zip(x.transpose(1, 2), lengths)])


def attention(case, peer):
    lengths, (q, k, v) = case["lengths"], operands(case)
    if peer == "varlen":
        attend = varlen(lengths)
        run = lambda turn: attend(q, k, v)
        return run, attention_error(run(0).split(lengths), q, k, v, lengths)
    padded = [pad(x, lengths) for x in (q, k, v)]
    run = lambda turn: F.scaled_dot_product_attention(*padded, is_causal=True)
    return run, attention_error(packed(run(0), lengths).split(lengths), q, k, v, lengths)


def attention_backward(case, peer):
    """From what a forward has saved. Padded rows have a gradient of zero."""
    lengths, given = case["lengths"], operands(case)
    d_out = normals(*given[0].shape, dtype=torch.bfloat16)
    if peer == "varlen":
        attend, arrange, back = varlen(lengths), lambda x: x.clone(), lambda x: x
    else:
        attend = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
        arrange, back = lambda x: pad(x, lengths), lambda x: packed(x, lengths)
    inputs, d = [arrange(x).requires_grad_() for x in given], arrange(d_out)
    with torch.enable_grad():
        out = attend(*inputs)
    run = lambda turn: torch.autograd.grad(out, inputs, d, retain_graph=True)
    found = [back(gradient) for gradient in run(0)]
    return run, gradient_error(found, given, d_out, lengths)


def gradient_error(found, given, d_out, lengths):
    """Of the last head in the shortest sequence."""
    at = min(range(len(lengths)), key=lengths.__getitem__)
    part = lambda x: x.split(lengths)[at][:, -1].double()
    q, k, v = (part(x).requires_grad_() for x in given)
    with torch.enable_grad():
        scores = q @ k.T / math.sqrt(q.shape[-1])
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        out = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v
        wanted = torch.autograd.grad(out, (q, k, v), part(d_out))
    return relative(torch.cat([part(x) for x in found]), torch.cat(wanted))


def attention_error(found, q, k, v, lengths):
    """Of some rows of every sequence."""
    pairs = []
    for out, q, k, v in zip(found, q.split(lengths), k.split(lengths), v.split(lengths)):
        for row in places(len(q), 5).tolist():
            seen = [x[: row + 1].double() for x in (k, v)]
            scores = torch.einsum("hd,nhd->hn", q[row].double(), seen[0]) / math.sqrt(q.shape[-1])
            pairs.append((out[row], torch.einsum("hn,nhd->hd", scores.softmax(-1), seen[1])))
    return relative(torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]))
