"""bitsandbytes' NF4 on the CPU, as a peer for the benches.

Reads one JSON command a line from standard input, answers with one JSON object a line (see bench/src/nf4).

dequantize  the whole weight
product     dequantise, then multiply: what a training forward does
fused       Linear4bit in evaluation on a processor with AVX512-BF16: the weight is repacked once, then the library's own
            kernel multiplies codes. (With the package `kernels` bitsandbytes would fetch another one from a hub; it
            says so on standard error.)
"""

import json
import sys
import time

import torch
import bitsandbytes as bnb
import bitsandbytes.functional as F

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Weights:
    """Weights of one shape, quantised once for every dtype; repacked copies for evaluation."""

    def __init__(self):
        self.quantised, self.layers = {}, {}

    def get(self, d_out, d_in, dtype):
        key = (d_out, d_in, dtype)
        if key not in self.quantised:
            torch.manual_seed(1)
            weight = (torch.randn(d_out, d_in) * 0.02).to(dtype)
            self.quantised[key] = F.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
        return self.quantised[key]

    def layer(self, d_out, d_in, dtype):
        key = (d_out, d_in, dtype)
        if key not in self.layers:
            layer = bnb.nn.Linear4bit(d_in, d_out, bias=False, compute_dtype=dtype, quant_type="nf4")
            layer.weight = bnb.nn.Params4bit(
                torch.randn(d_out, d_in) * 0.02, requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            self.layers[key] = layer.to("cpu").eval()
        return self.layers[key]


def work(weights, command):
    """What is timed, as a function without arguments."""
    dtype = DTYPES[command["dtype"]]
    shape = command["d_out"], command["d_in"]
    if command["path"] == "fused":
        layer = weights.layer(*shape, dtype)
        x = torch.randn(command["rows"], command["d_in"]).to(dtype)
        layer(x)
        assert layer.weight.quant_state.packing_format_for_cpu, "bitsandbytes has no fused kernel for this processor"
        return lambda: layer(x)
    codes, state = weights.get(*shape, dtype)
    if command["path"] == "dequantize":
        return lambda: F.dequantize_4bit(codes, state)
    x = torch.randn(command["rows"], command["d_in"]).to(dtype)
    return lambda: torch.nn.functional.linear(x, F.dequantize_4bit(codes, state))


def main():
    weights = Weights()
    for line in sys.stdin:
        command = json.loads(line)
        torch.set_num_threads(command["threads"])
        with torch.no_grad():
            timed = work(weights, command)
            timed()
            milliseconds = []
            for _ in range(command["repeats"]):
                start = time.perf_counter()
                timed()
                milliseconds.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"milliseconds": milliseconds}), flush=True)


if __name__ == "__main__":
    main()
