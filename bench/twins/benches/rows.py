"""What a layer does between its products."""

import torch
import torch.nn.functional as F

from .device import DEVICE, compiled, normals, places, relative

EPS = 1e-5


def rms_norm(case, peer):
    x, residual = (normals(case["rows"], case["cols"]) for _ in range(2))
    gain = normals(case["cols"])

    def formula(x, residual, gain):
        h = x + residual
        return h, h * torch.rsqrt(h.square().mean(-1, keepdim=True) + EPS) * gain

    timed = compiled(formula)
    rows = places(case["rows"])
    wanted = formula(x[rows].double(), residual[rows].double(), gain.double())[1]
    return lambda turn: timed(x, residual, gain), relative(timed(x, residual, gain)[1][rows], wanted)


def rope(case, peer):
    rows, heads, width = case["rows"], case["heads"], case["head_dim"]
    x = normals(rows, heads, width)
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, device=DEVICE) / width)
    angles = ((torch.arange(rows, device=DEVICE) % 1024).unsqueeze(1) * frequencies).unsqueeze(1)

    def formula(x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    timed = compiled(formula)
    cos, sin, some = angles.cos(), angles.sin(), places(rows)
    wanted = formula(x[some].double(), angles[some].double().cos(), angles[some].double().sin())
    return lambda turn: timed(x, cos, sin), relative(timed(x, cos, sin)[some], wanted)


def swiglu(case, peer):
    gate, up = (normals(case["rows"], case["cols"]) for _ in range(2))
    formula = lambda gate, up: F.silu(gate) * up
    timed, rows = compiled(formula), places(case["rows"])
    error = relative(timed(gate, up)[rows], formula(gate[rows].double(), up[rows].double()))
    return lambda turn: timed(gate, up), error
