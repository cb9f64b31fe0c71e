"""A small Llama in plain torch: the mathematics of the HF architecture `LlamaForCausalLM`, tied embeddings."""
import json
import math
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

CONFIG = dict(hidden_size=128, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=100000.0)


def create(config, vocab, seed):
    """Name -> tensor, HF names."""
    g = torch.Generator().manual_seed(seed)
    h, f = config["hidden_size"], config["intermediate_size"]
    kv = h // config["num_attention_heads"] * config["num_key_value_heads"]
    n = config["num_hidden_layers"]
    normal = lambda o, i, s: torch.randn(o, i, generator=g) * s
    p = {"model.embed_tokens.weight": normal(vocab, h, 0.05), "model.norm.weight": torch.ones(h)}
    for l in range(n):
        q = "model.layers.%d." % l
        for name, o, i in (("q", h, h), ("k", kv, h), ("v", kv, h), ("o", h, h)):
            p[q + "self_attn.%s_proj.weight" % name] = normal(o, i, i**-0.5 / (math.sqrt(2 * n) if name == "o" else 1))
        for name, o, i in (("gate", f, h), ("up", f, h), ("down", h, f)):
            p[q + "mlp.%s_proj.weight" % name] = normal(o, i, i**-0.5 / (math.sqrt(2 * n) if name == "down" else 1))
        if l > 0:  # half of the heads start with queries equal to keys: the same words attend to one another
            d, share = kv // config["num_key_value_heads"], config["num_attention_heads"] // config["num_key_value_heads"]
            for i in range(share):
                p[q + "self_attn.q_proj.weight"][i * d : (i + 1) * d] = p[q + "self_attn.k_proj.weight"][:d]
        p[q + "input_layernorm.weight"] = torch.ones(h)
        p[q + "post_attention_layernorm.weight"] = torch.ones(h)
    return p


def rope(config, length):
    d = config["hidden_size"] // config["num_attention_heads"]
    inv = config["rope_theta"] ** (-torch.arange(0, d, 2).float() / d)
    a = torch.outer(torch.arange(length).float(), inv)
    a = torch.cat([a, a], -1)
    return a.cos(), a.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def forward(p, config, ids, linear=None, layers_out=None):
    """ids [B, T], right-padded -> normed hidden states [B, T, H]. `linear(name, x)` replaces the plain products (LoRA)."""
    linear = linear or (lambda name, x: F.linear(x, p[name + ".weight"]))
    norm = lambda x, name: F.rms_norm(x, (x.shape[-1],), p[name + ".weight"], config["rms_norm_eps"])
    B, T = ids.shape
    H, K = config["num_attention_heads"], config["num_key_value_heads"]
    cos, sin = rope(config, T)
    x = F.embedding(ids, p["model.embed_tokens.weight"])
    for l in range(config["num_hidden_layers"]):
        q = "model.layers.%d." % l
        h = norm(x, q + "input_layernorm")
        heads = lambda name, n: linear(q + "self_attn." + name, h).view(B, T, n, -1).transpose(1, 2)
        a = rotate(heads("q_proj", H), cos, sin)
        b = rotate(heads("k_proj", K), cos, sin).repeat_interleave(H // K, 1)
        c = heads("v_proj", K).repeat_interleave(H // K, 1)
        y = F.scaled_dot_product_attention(a, b, c, is_causal=True).transpose(1, 2).reshape(B, T, -1)
        x = x + linear(q + "self_attn.o_proj", y)
        h = norm(x, q + "post_attention_layernorm")
        x = x + linear(q + "mlp.down_proj", F.silu(linear(q + "mlp.gate_proj", h)) * linear(q + "mlp.up_proj", h))
        if layers_out is not None:
            layers_out.append(x)
    return norm(x, "model.norm")


def save(folder, p, config, vocab, dtype=torch.bfloat16):
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.detach().to(dtype).contiguous() for k, v in p.items()}, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    c = dict(architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, mlp_bias=False, hidden_act="silu", initializer_range=0.02,
             bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=2048, rope_scaling=None, tie_word_embeddings=True,
             torch_dtype=str(dtype).split(".")[1], use_cache=True, vocab_size=vocab, **config)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(dict(sorted(c.items())), f, indent=2)
        f.write("\n")


def load(folder):
    config = json.load(open(os.path.join(folder, "config.json")))
    return {k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}, config
