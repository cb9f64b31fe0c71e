"""The ceilings: a copy, and a product of bfloat16."""

import torch
import torch.nn.functional as F

from .device import normals, product_error, relative


def copy(case, peer):
    source = normals(case["bytes"] // 4)
    target = torch.empty_like(source)
    run = lambda turn: target.copy_(source)
    return run, relative(run(0), source.double()) if source.numel() < 1 << 24 else None


def product(case, peer):
    x, weight = (normals(case["size"], case["size"], dtype=torch.bfloat16) for _ in range(2))
    run = lambda turn: F.linear(x, weight)
    return run, product_error(run(0), x, weight)
