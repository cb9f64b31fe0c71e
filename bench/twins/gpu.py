"""PyTorch, bitsandbytes and transformers on a card, as peers for the kernels.

    gpu.py {cuda,cpu}

Reads one JSON command a line from standard input, answers with one JSON object a line (see bench/src/gpu/side.rs). A case
names its `bench` and its sizes, a command the `peer` that is asked for. On the CPU it shows that all of this runs.

about    versions
prepare  makes random inputs, warms up, and compares with float64 where that is cheap
time     so many repetitions with one wait for the device at their end: milliseconds of one
release  gives everything back

What is not installed, or not made for the device, is `absent`; whatever else goes wrong has `failed`.
"""

import gc
import inspect
import json
import math
import os
import platform
import sys
import time
from importlib import metadata

import torch
import torch.nn.functional as F

DEVICE = "cpu"
# Copies of what is read in turn take at least this much: a cache of 60 MB holds none of it until it is read again.
ROTATED_BYTES = 160 << 20
# Places that are compared with float64, along each side of a result.
SAMPLE = 16
# Scores that are held at a time.
SCORES_BYTES = 4 << 30
EPS = 1e-5
WARM_UP = 3


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


# Every bench returns what is timed, a function of the number of the repetition, and the error or None.


def copy(case, peer):
    source = normals(case["bytes"] // 4)
    target = torch.empty_like(source)
    run = lambda turn: target.copy_(source)
    return run, relative(run(0), source.double()) if source.numel() < 1 << 24 else None


def product(case, peer):
    x, weight = (normals(case["size"], case["size"], dtype=torch.bfloat16) for _ in range(2))
    run = lambda turn: F.linear(x, weight)
    return run, product_error(run(0), x, weight)


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


def twin_of_lrurec():
    try:
        import lrurec
    except ImportError as e:
        raise Absent(str(e)) from e
    return lrurec


def scan(case, peer):
    """The doubling form of the public implementation; what it adds is multiplied by gamma already."""
    scan_padded = twin_of_lrurec().scan_padded
    sequences, length, state = case["sequences"], case["length"], case["state"]
    u = torch.view_as_complex(normals(sequences, length, state, 2))
    lam = torch.polar(torch.linspace(0.8, 0.99, state, device=DEVICE), torch.rand(state, device=DEVICE) * 2 * math.pi)
    mask = torch.ones(sequences, length, dtype=torch.bool, device=DEVICE)
    run = lambda turn: scan_padded(u, lam, mask)
    h, wanted = run(0)[0], torch.zeros(state, dtype=torch.complex128, device=DEVICE)
    rows = []
    for step in u[0].to(torch.complex128)[:200]:
        wanted = wanted * lam + step
        rows.append(wanted)
    return run, relative(torch.view_as_real(h[: len(rows)]), torch.view_as_real(torch.stack(rows)))


def retriever_step(case, peer):
    """The forms of lrurec.py, with batches that are on the device beforehand."""
    lrurec = twin_of_lrurec()
    with open(os.path.join(case["folder"], "problem.json")) as file:
        problem = json.load(file)
    tensors = lrurec.load_file(os.path.join(case["folder"], "weights.safetensors"))
    on_device = lambda x: x.to(DEVICE) if isinstance(x, torch.Tensor) else x
    tensors = {name: on_device(x) for name, x in tensors.items()}
    layout = "all" if peer == "all_positions" else "packed"
    model = lrurec.make(layout, problem, tensors, problem["dropout"])
    batches = [tuple(map(on_device, model.batch(windows))) for windows in problem["batches"]]

    def run(turn):
        with torch.enable_grad():
            return model.update(model.loss_of(*batches[turn % len(batches)]))

    return run, None


def top(case, peer):
    users, width, k = case["users"], case["width"], case["k"]
    x, weight, bias = normals(users, width), normals(case["items"] + 1, width, size=0.1), normals(case["items"] + 1)
    seen = torch.randint(1, case["items"] + 1, (users, 5), device=DEVICE)
    at_once = max(1, min(users, SCORES_BYTES // (4 * len(bias))))

    def best(x, seen):
        scores = torch.addmm(bias, x, weight.T)
        scores[:, 0] = -math.inf
        scores.scatter_(1, seen, -math.inf)
        return scores.topk(k).indices

    def run(turn):
        torch.backends.cuda.matmul.allow_tf32 = peer == "torch_tf32"
        found = torch.cat([best(*part) for part in zip(x.split(at_once), seen.split(at_once))]).cpu()
        torch.backends.cuda.matmul.allow_tf32 = False
        return found

    return run, top_error(run(0), x, weight, bias, seen, k)


def top_error(found, x, weight, bias, seen, k):
    """The share of the places at which another item stands than float64 would put there."""
    some = places(len(x), 2)
    rows = [part.double() @ x[some].double().T for part in weight.split(1 << 20)]
    scores = torch.cat(rows).T + bias.double()
    scores[:, 0] = -math.inf
    scores.scatter_(1, seen[some], -math.inf)
    return (scores.topk(k).indices.cpu() != found[some.cpu()]).double().mean().item()


def captions(case, peer):
    try:
        from transformers import Blip2Config, Blip2ForConditionalGeneration
    except Exception as e:
        raise Absent(f"transformers: {e}") from e
    dtype = torch.float16 if DEVICE == "cuda" else torch.float32
    config = Blip2Config.from_dict(case["config"])
    torch.set_default_dtype(dtype)
    try:
        with torch.device(DEVICE):
            model = Blip2ForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    side, tokens = config.vision_config.image_size, case["tokens"]
    pixels = normals(case["images"], 3, side, side, dtype=dtype)
    settings = dict(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, num_beams=1, pad_token_id=1)
    return lambda turn: model.generate(pixel_values=pixels, **settings), None


BENCHES = {
    bench.__name__: bench
    for bench in (copy, product, nf4_dequantize, nf4_product, nf4_input_gradient, attention, rms_norm, rope, swiglu)
    + (scan, retriever_step, top, captions)
}


def about():
    found = {"Python": platform.python_version(), "device": DEVICE}
    if DEVICE == "cuda" and torch.cuda.is_available():
        found["card"] = torch.cuda.get_device_name()
    for package in ("torch", "triton", "bitsandbytes", "transformers"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {"about": {**found, "CUDA of torch": str(torch.version.cuda)}}


def answer(entries, command):
    what, peer = command["do"], command.get("peer")
    if what == "about":
        return about()
    if what == "prepare":
        torch.manual_seed(1)
        run, error = BENCHES[command["case"]["bench"]](command["case"], peer)
        for turn in range(WARM_UP if DEVICE == "cuda" else 1):
            run(turn)
        wait()
        entries[peer] = run
        return {"error": error}
    if what == "time":
        run, repeats = entries[peer], command["repeats"]
        run(0)
        wait()
        start = time.perf_counter()
        for turn in range(1, repeats + 1):
            run(turn)
        wait()
        return {"milliseconds": (time.perf_counter() - start) * 1e3 / repeats}
    entries.clear()
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    return {}


def failed(error):
    """What went wrong, and whether the device is lost to this process."""
    try:
        wait()
        lost = False
    except Exception:
        lost = True
    return {"failed": f"{type(error).__name__}: {error}", "lost": lost}


def main():
    global DEVICE
    DEVICE = sys.argv[1]
    # Libraries print what they like: answers have a way of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    entries = {}
    for line in sys.stdin:
        try:
            with torch.no_grad():
                said = answer(entries, json.loads(line))
        except Absent as e:
            said = {"absent": str(e)}
        except Exception as e:
            said = failed(e)
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
