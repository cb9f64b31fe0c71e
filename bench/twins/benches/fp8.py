"""Products of eight bits by PyTorch, a factor for every row, and of bfloat16."""

import torch
import torch.nn.functional as F

from .device import compiled, copies, normals, product_error
from .nf4 import dense_weights

MOST = 448.0


def cut(rows):
    """Rows in eight bits, and their factors."""
    factors = rows.abs().amax(1, keepdim=True).float() / MOST
    return (rows / factors).to(torch.float8_e4m3fn), factors


def fp8_product(case, peer):
    x = normals(case["rows"], case["d_in"], dtype=torch.bfloat16)
    if peer == "torch":
        dense = dense_weights(case)
        run = lambda turn: F.linear(x, dense[turn % len(dense)])
        return run, product_error(run(0), x, dense[0])
    weight = normals(case["d_out"], case["d_in"], dtype=torch.bfloat16, size=0.02)
    codes, factors = cut(weight)
    rotated = [codes.clone() for _ in range(copies(codes.numel()))]
    columns = factors.t().contiguous()

    def multiply(x, codes):
        x, of_x = cut(x)
        return torch._scaled_mm(x, codes.t(), scale_a=of_x, scale_b=columns, out_dtype=torch.bfloat16)

    # What cuts the rows is one kernel there.
    multiply = compiled(multiply)
    run = lambda turn: multiply(x, rotated[turn % len(rotated)])
    return run, product_error(run(0), x, weight)
