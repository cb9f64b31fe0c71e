"""The device, what goes wrong on it, and how results are compared."""

import math
import sys

import torch

DEVICE = sys.argv[1]
# Copies of what is read in turn take at least this much: a cache of 60 MB holds none of it until it is read again.
ROTATED_BYTES = 160 << 20
# Places that are compared with float64, along each side of a result.
SAMPLE = 16


class Absent(Exception):
    """A peer that is not here."""


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def normals(*shape, dtype=torch.float32, size=1.0):
    return (torch.randn(*shape, device=DEVICE) * size).to(dtype)


def copies(size):
    return max(2, math.ceil(ROTATED_BYTES / size)) if DEVICE == "cuda" else 2


def relative(found, wanted):
    """The norm of the difference, relative to that of what is wanted."""
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def places(n, most=SAMPLE):
    step = max(1, n // most)
    return torch.arange(min(n, most), device=DEVICE) * step


def product_error(found, x, weight):
    """Of `x · weightᵀ`, on a sample."""
    rows, cols = places(found.shape[0]), places(found.shape[1])
    return relative(found[rows][:, cols], x[rows].double() @ weight[cols].double().T)


def compiled(function):
    return torch.compile(function) if DEVICE == "cuda" else function
