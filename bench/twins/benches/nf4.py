"""Four-bit weights by bitsandbytes, and dense ones."""

import torch
import torch.nn.functional as F

from .device import Absent, copies, normals, product_error


def bitsandbytes():
    try:
        import bitsandbytes as bnb
        import bitsandbytes.functional
    except Exception as e:
        raise Absent(f"bitsandbytes: {e}") from e
    return bnb


class FourBit:
    """Copies of a weight in four bits, and the weight decoded."""

    def __init__(self, case):
        self.bnb = bitsandbytes()
        shape = case["d_out"], case["d_in"]
        weight = normals(*shape, dtype=torch.bfloat16, size=0.02)
        quantise = lambda: self.bnb.functional.quantize_4bit(
            weight, blocksize=64, compress_statistics=True, quant_type="nf4"
        )
        self.copies = [quantise() for _ in range(copies(weight.numel() // 2))]

    def of(self, turn):
        return self.copies[turn % len(self.copies)]

    def decode(self, turn):
        return self.bnb.functional.dequantize_4bit(*self.of(turn))


def dense_weights(case):
    """Copies of a weight in bfloat16: what a four-bit weight is decoded to."""
    weight = normals(case["d_out"], case["d_in"], dtype=torch.bfloat16, size=0.02)
    return [weight.clone() for _ in range(copies(weight.numel() * 2))]


def nf4_dequantize(case, peer):
    weights = FourBit(case)
    return weights.decode, None


def nf4_product(case, peer):
    x = normals(case["rows"], case["d_in"], dtype=torch.bfloat16)
    if peer == "bitsandbytes":
        weights = FourBit(case)

        def run(turn):
            codes, state = weights.of(turn)
            return weights.bnb.matmul_4bit(x, codes.t(), quant_state=state)

        return run, product_error(run(0), x, weights.decode(0))
    dense = dense_weights(case)
    run = lambda turn: F.linear(x, dense[turn % len(dense)])
    return run, product_error(run(0), x, dense[0])


def nf4_input_gradient(case, peer):
    """What the backward of bitsandbytes' product does: decode, then multiply."""
    dy = normals(case["rows"], case["d_out"], dtype=torch.bfloat16)
    if peer == "bitsandbytes":
        decode = FourBit(case).decode
    else:
        dense = dense_weights(case)
        decode = lambda turn: dense[turn % len(dense)]
    run = lambda turn: dy @ decode(turn)
    return run, product_error(run(0), dy, decode(0).T)
