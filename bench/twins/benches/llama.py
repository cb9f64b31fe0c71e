"""A Llama as PyTorch alone computes it fastest: packed prompts, dense weights, low-rank updates of queries and values. On the CPU
it computes in float32."""

import sys

import torch
import torch.nn.functional as F

from .attention import varlen
from .device import DEVICE, Absent, compiled

TARGETS = ("self_attn.q_proj", "self_attn.v_proj")


class Fused:
    """A formula, compiled to one kernel where the compiler works; it says so where it does not."""

    def __init__(self, formula):
        self.formula, self.run = formula, compiled(formula)

    def __call__(self, *operands):
        try:
            return self.run(*operands)
        except torch.OutOfMemoryError:
            raise
        except Exception as e:
            if self.run is self.formula:
                raise
            print(f"{self.formula.__name__} is not compiled: {e}", file=sys.stderr)
            self.run = self.formula
            return self.run(*operands)


@Fused
def norm(x, gain, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * gain


@Fused
def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


@Fused
def gated(gate, up):
    return F.silu(gate) * up


def by_sequence(lengths):
    """Attention of packed operands, one sequence after the other."""

    def attend(q, k, v):
        each = zip(*([rows.transpose(0, 1).unsqueeze(0) for rows in x.split(lengths)] for x in (q, k, v)))
        outs = [F.scaled_dot_product_attention(*qkv, is_causal=True) for qkv in each]
        return torch.cat([out.squeeze(0).transpose(0, 1) for out in outs])

    return attend


def packed_attention(lengths):
    try:
        return varlen(lengths)
    except Absent:
        return by_sequence(lengths)


class Llama:
    """Frozen weights in `dtype`; the updates are float32 and used in `dtype`."""

    def __init__(self, problem, weights, dtype):
        self.config, self.dtype = problem["config"], dtype
        self.rank, self.scale = problem["rank"], problem["alpha"] / problem["rank"]
        self.layers, self.heads = self.config["num_hidden_layers"], self.config["num_attention_heads"]
        self.kv_heads = self.config["num_key_value_heads"]
        hidden, inner, vocabulary = (self.config[name] for name in ("hidden_size", "intermediate_size", "vocab_size"))
        self.head_dim = hidden // self.heads
        keys = self.kv_heads * self.head_dim
        attention = {"q": (hidden, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, hidden)}
        self.shapes = {f"self_attn.{name}_proj": shape for name, shape in attention.items()}
        block = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        self.shapes |= {f"mlp.{name}_proj": shape for name, shape in block.items()}
        shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
        shapes["model.norm.weight"] = (hidden,)
        for layer in range(self.layers):
            shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in self.shapes.items()}
            norms = ("input_layernorm", "post_attention_layernorm")
            shapes |= {f"model.layers.{layer}.{name}.weight": (hidden,) for name in norms}
        self.frozen = {name: weights.take(name, shape).to(dtype) for name, shape in shapes.items()}
        self.updates = {}
        for layer in range(self.layers):
            for name in TARGETS:
                d_out, d_in = self.shapes[name]
                for factor, shape in (("A", (self.rank, d_in)), ("B", (d_out, self.rank))):
                    full = f"base_model.model.model.layers.{layer}.{name}.lora_{factor}.weight"
                    self.updates[full] = weights.take(full, shape).requires_grad_()
        places = torch.arange(0, self.head_dim, 2, device=DEVICE)
        self.frequencies = self.config["rope_theta"] ** (-places / self.head_dim)

    def linear(self, layer, name, x):
        y = F.linear(x, self.frozen[f"model.layers.{layer}.{name}.weight"])
        if name not in TARGETS:
            return y
        full = f"base_model.model.model.layers.{layer}.{name}.lora_"
        a, b = (self.updates[f"{full}{factor}.weight"].to(self.dtype) for factor in "AB")
        return y + F.linear(F.linear(x, a), b) * self.scale

    def hidden(self, texts, rows):
        """The last norm of some rows of packed texts; the last layer carries no others."""
        lengths = [len(text) for text in texts]
        positions = torch.cat([torch.arange(n, device=DEVICE) for n in lengths])
        angles = (positions.unsqueeze(1) * self.frequencies).unsqueeze(1)
        cos, sin, attend = angles.cos(), angles.sin(), packed_attention(lengths)
        eps, split = self.config["rms_norm_eps"], lambda x, heads: x.unflatten(-1, (heads, self.head_dim))
        gain = lambda name: self.frozen[f"model.{name}.weight"]
        h = F.embedding(torch.cat(texts), gain("embed_tokens"))
        for layer in range(self.layers):
            x = norm(h, gain(f"layers.{layer}.input_layernorm"), eps)
            q, k, v = (self.linear(layer, f"self_attn.{name}_proj", x) for name in "qkv")
            q = rotate(split(q, self.heads), cos, sin)
            k, v = rotate(split(k, self.kv_heads), cos, sin), split(v, self.kv_heads)
            if self.kv_heads < self.heads:
                k, v = (x.repeat_interleave(self.heads // self.kv_heads, 1) for x in (k, v))
            mixed = attend(q, k, v).flatten(1)
            if layer + 1 == self.layers:
                mixed, h = mixed[rows], h[rows]
            h = h + self.linear(layer, "self_attn.o_proj", mixed)
            x = norm(h, gain(f"layers.{layer}.post_attention_layernorm"), eps)
            inner = gated(self.linear(layer, "mlp.gate_proj", x), self.linear(layer, "mlp.up_proj", x))
            h = h + self.linear(layer, "mlp.down_proj", inner)
        return norm(h, gain("norm"), eps)


class Packed:
    """The strongest peer."""

    def __init__(self, problem, weights):
        self.network = Llama(problem, weights, torch.bfloat16 if DEVICE == "cuda" else torch.float32)
        self.head, self.most = self.network.frozen["lm_head.weight"], problem["micro_batch_tokens"]
        self.parameters = self.network.updates

    def runs(self, texts):
        """Neighbours of no more tokens together than are computed at a time."""
        run, tokens = [], 0
        for text in texts:
            if run and tokens + len(text) > self.most:
                yield run
                run, tokens = [], 0
            run.append(text)
            tokens += len(text)
        yield run

    def losses(self, texts):
        """The parts of the mean loss, by micro-batches: the last two tokens of every text, from those before."""
        for run in self.runs(texts):
            given = [text[:-1] for text in run]
            ends = torch.tensor([len(text) for text in given], device=DEVICE).cumsum(0)
            rows = torch.stack([ends - 2, ends - 1], 1).flatten()
            logits = F.linear(self.network.hidden(given, rows), self.head).float()
            wanted = torch.cat([text[-2:] for text in run])
            yield F.cross_entropy(logits, wanted, reduction="sum") / (2 * len(texts))

    def scores(self, texts, labels):
        head, found = self.head[labels], []
        for run in self.runs([text[:-1] for text in texts]):
            last = torch.tensor([len(text) for text in run], device=DEVICE).cumsum(0) - 1
            found.append(F.linear(self.network.hidden(run, last), head).float())
        return torch.cat(found)
