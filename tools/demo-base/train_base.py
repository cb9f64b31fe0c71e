"""Trains the demo's base: a tokenizer and a small Llama that can read a shop's prompts.

It sees shops of other seeds than the demo's only (TOKENIZER_SEEDS, TRAIN_SEEDS, CHECK_SEEDS), in which the same words stand for other
items: it can learn to compare descriptions, not what a shop sells.

    python train_base.py --out base

Losses: the letter (not the sampled one, but the chances of all: the generator knows them) and </s>, the next token at a sample of the positions (so that
it is a language model of shop texts), and, through a probe that is thrown away, whether each candidate shows the
customer's motifs, and which of its words stand in the history (dense supervision instead of one answer a prompt).
"""
import argparse
import math
import os
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import model
import tokenizer as tokens
from prompt import Encoder
from shop import WORDS, Shop

TRAIN_SEEDS = range(1000, 1000000)
CHECK_SEEDS = range(600, 620)


def chances(shop, seen, pool, captions):
    """What an ideal reader would answer: the chance of each candidate, given the history, up to what the titles (and captions) tell."""
    s, items = shop.s, shop.items
    n_motif, n_cat, t = s["motifs"], s["categories"], s["taste_percent"] / 100
    if t == 1:
        t = 0.97
    likely = (t + (1 - t) / n_motif) / ((1 - t) / n_motif)  # of a purchase, if its motif is the taste
    weight = [1.0] * n_motif
    for i in seen:
        weight[items[i]["motif"]] *= likely
    total = sum(weight)
    last = items[seen[-1]]["category"]
    first, second = s["first_percent"] / 100, s["second_percent"] / 100
    out = []
    for i in pool:
        step = (items[i]["category"] - last) % n_cat
        c = (1 - first - second) / n_cat + (first if step == 1 else second if step == 2 else 0)
        out.append(c * (t * weight[items[i]["motif"]] / total + (1 - t) / n_motif if captions else 1))
    total = sum(out)
    return [x / total for x in out]


def example(rng, shop, user, k, history, captions, encoder, head=True, first=0):
    """One prompt: a prefix of a customer's purchases, k candidates like a retriever's, the next purchase among them."""
    items, n_motif, n_cat = shop.items, shop.s["motifs"], shop.s["categories"]
    at = rng.randrange(min(history, len(user["items"]) - 1), len(user["items"]))
    seen = user["items"][max(0, at - history) : at]
    target = user["items"][at]
    last = items[seen[-1]]["category"]
    pool = [target]
    while len(pool) < k:
        r = rng.random()
        c = (last + 1) % n_cat if r < 0.55 else (last + 2) % n_cat if r < 0.85 else rng.randrange(n_cat)
        m = rng.randrange(n_motif) if rng.random() < 0.93 else user["taste"]
        i = c * n_motif + m
        if i not in pool and i not in user["items"][:at]:
            pool.append(i)
    rng.shuffle(pool)
    ids, ends = encoder.prompt([items[i] for i in seen], [items[i] for i in pool], captions, head, first)
    shown = {items[i]["motif"] for i in seen}
    match = [float(items[i]["motif"] in shown) for i in pool]
    return dict(ids=ids, ends=ends, match=match, target=pool.index(target), chances=chances(shop, seen, pool, captions), first=first)


def batches(seed, number, stage, encoder):
    """Endless padded batches of one stage; a shop is used for 24 customers and never again."""
    rng = random.Random(seed * 100 + number)
    shop_seed = TRAIN_SEEDS.start + 100000 * number
    users = []
    while True:
        captions = rng.random() < stage["captions_percent"] / 100
        k, history = rng.randint(*stage["candidates"]), rng.randint(*stage["history"])
        head = rng.randrange(100) < stage["instruction_percent"]
        first = rng.randint(0, 20 - k) if rng.randrange(100) < stage["any_letter_percent"] else 0
        rows = []
        while len(rows) < stage["batch"]:
            if not users:
                shop = Shop(shop_seed, users=24, taste_percent=stage["taste_percent"])
                shop_seed += 1
                users = list(shop.users)
            rows.append(example(rng, shop, users.pop(), k, history, captions, encoder, head, first))
        yield collate(rows, encoder), captions


def collate(rows, encoder):
    T = max(len(r["ids"]) for r in rows) + 2
    ids = torch.zeros(len(rows), T, dtype=torch.long)
    for b, r in enumerate(rows):
        ids[b, : len(r["ids"]) + 2] = torch.tensor(r["ids"] + [encoder.letters[r["first"] + r["target"]], 2])
    out = {k: torch.tensor([r[k] for r in rows]) for k in ("ends", "match", "target", "chances")}
    k = len(rows[0]["ends"])
    letters = torch.tensor([encoder.letters[r["first"] : r["first"] + k] for r in rows])
    return dict(ids=ids, last=torch.tensor([len(r["ids"]) - 1 for r in rows]), letters=letters, **out)


def accuracy(p, config, encoder, captions, prompts=200, k=20, taste_percent=100):
    """Share of check prompts whose target is first, and mean reciprocal rank."""
    rng = random.Random(5)
    rows = []
    for seed in CHECK_SEEDS:
        shop = Shop(seed, users=prompts // len(CHECK_SEEDS), taste_percent=taste_percent)
        rows += [example(rng, shop, u, k, 6, captions, encoder) for u in shop.users]
    first, mrr = 0, 0.0
    with torch.no_grad():
        for i in range(0, len(rows), 20):
            b = collate(rows[i : i + 20], encoder)
            h = model.forward(p, config, b["ids"][:, :-2])
            s = h[torch.arange(len(h)), b["last"]] @ p["model.embed_tokens.weight"][encoder.letters].T
            rank = (s > s.gather(1, b["target"][:, None])).sum(1)
            first += (rank == 0).sum().item()
            mrr += (1 / (1 + rank.float())).sum().item()
    return first / len(rows), mrr / len(rows)


STAGES = [
    dict(steps=1000, lr=(2e-3, 1.7e-3), candidates=(2, 5), history=(1, 3), taste_percent=100, batch=32, instruction_percent=0, any_letter_percent=0, captions_percent=90),
    dict(steps=600, lr=(1.5e-3, 1.5e-3), candidates=(4, 12), history=(2, 5), taste_percent=85, batch=24, instruction_percent=100, any_letter_percent=50, captions_percent=90),
    dict(steps=1200, lr=(1.5e-3, 2e-5), candidates=(12, 20), history=(3, 6), taste_percent=60, batch=16, instruction_percent=100, any_letter_percent=0, captions_percent=80),
    dict(steps=1000, lr=(1e-3, 2e-5), candidates=(20, 20), history=(4, 6), taste_percent=50, batch=16, instruction_percent=100, any_letter_percent=0, captions_percent=50),
]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", default="base")
    a.add_argument("--vocab", type=int, default=1280)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--first", type=int, default=0, help="begin with this stage, from the checkpoint of the one before")
    a.add_argument("--checkpoints", default="", help="folder for a checkpoint after each stage")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    tok = tokens.build(o.out, o.vocab)
    encoder = Encoder(tok)
    shop = Shop(CHECK_SEEDS[0], users=1)
    for captions in (True, False):
        encoder.check(shop.items[:6], shop.items[30:50], captions)
    config = dict(model.CONFIG)
    p = model.create(config, o.vocab, o.seed)
    # The probes (weights and a bias), thrown away at the end.
    for name in ("match", "score", "again"):
        p[name] = torch.zeros(config["hidden_size"] + 1)
    checkpoint = lambda n: os.path.join(o.checkpoints, "stage-%d.safetensors" % n)
    p["letter"] = torch.eye(config["hidden_size"])
    if o.first:
        p = load_file(checkpoint(o.first - 1))
    print("parameters", sum(t.numel() for k, t in p.items() if k.startswith("model")), flush=True)
    for number in range(o.first, len(STAGES)):
        p = train(p, config, encoder, number, o)
        if o.checkpoints:
            os.makedirs(o.checkpoints, exist_ok=True)
            save_file(p, checkpoint(number))
        model.save(o.out, {k: v for k, v in p.items() if k.startswith("model")}, config, o.vocab)


def train(p, config, encoder, number, o):
    """One stage: fresh optimiser, its own examples and learning rates (half a cosine from the first to the second)."""
    stage = STAGES[number]
    torch.manual_seed(o.seed * 100 + number)
    p = {k: v.clone().requires_grad_(True) for k, v in p.items()}
    decay = [t for t in p.values() if t.dim() == 2]
    opt = torch.optim.AdamW([dict(params=decay, weight_decay=0.05), dict(params=[t for t in p.values() if t.dim() != 2], weight_decay=0)], betas=(0.9, 0.98), eps=1e-8)
    looks = torch.zeros(len(p["model.embed_tokens.weight"]), dtype=torch.bool)
    looks[[encoder.ids(" " + w)[0] for w in WORDS["motifs"] + WORDS["colours"]]] = True
    pool_word = encoder.ids("Candidate pool:\n")[0]
    ask = lambda z, q: F.rms_norm(z, (z.shape[-1],)) @ q[:-1] + q[-1]
    E = p["model.embed_tokens.weight"]
    start, sums = time.time(), [0.0] * 8
    for step, (b, captions) in enumerate(batches(o.seed, number, stage, encoder)):
        if step == stage["steps"]:
            break
        high, low = stage["lr"]
        for g in opt.param_groups:
            g["lr"] = min(1, (step + 1) / 100) * (low + (high - low) * 0.5 * (1 + math.cos(math.pi * step / stage["steps"])))
        ids, last = b["ids"], b["last"]
        B, T = ids.shape
        layers = []
        h = model.forward(p, config, ids[:, :-1], layers_out=layers)
        rows = torch.arange(B)
        letter = -(F.log_softmax(h[rows, last] @ E.T, -1).gather(1, b["letters"]) * b["chances"]).sum(1).mean()
        ideal = -(b["chances"] * b["chances"].log()).sum(1).mean()
        eos = F.cross_entropy(h[rows, last + 1] @ E.T, ids[rows, last + 2])
        pick = (torch.rand(B, T - 1) < 0.15) & (torch.arange(T - 1)[None] < last[:, None])
        lm = F.cross_entropy(h[pick] @ E.T, ids[:, 1:][pick])
        loss = letter + 0.2 * eos + 0.3 * lm
        if captions:
            ends = layers[-2][rows[:, None], b["ends"]]
            match = F.binary_cross_entropy_with_logits(ask(ends, p["match"]), b["match"])
            score = -(F.log_softmax(ask(ends, p["score"]), 1) * b["chances"]).sum(1).mean()
            own = F.cross_entropy((F.rms_norm(ends, (ends.shape[-1],)) @ p["letter"] @ E.T).flatten(0, 1), b["letters"].flatten())
            x = ids[:, :-1]
            in_pool = (x == pool_word).cumsum(1) > 0
            asked = in_pool & looks[x]
            seen = ((x[:, :, None] == x[:, None, :]) & ~in_pool[:, None, :]).any(2)
            again = F.binary_cross_entropy_with_logits(ask(layers[1][asked], p["again"]), seen[asked].float())
            loss = loss + match + again + 0.5 * score + 0.3 * own
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        opt.step()
        if captions:
            for i, v in enumerate((letter.item() - ideal.item(), eos.item(), lm.item(), match.item(), again.item(), score.item() - ideal.item(), own.item(), 1)):
                sums[i] += v
        if (step + 1) % 100 == 0:
            print("stage %d step %d  %.0f s  letter over ideal %.3f  eos %.3f  lm %.3f  match %.3f  again %.3f  score over ideal %.3f  own %.3f" % (number, step + 1, time.time() - start, *(v / sums[7] for v in sums[:7])), flush=True)
            sums = [0.0] * 8
        if (step + 1) % 400 == 0 or step + 1 == stage["steps"]:
            print("   check (first, mrr): k=4 %.3f %.3f  k=20 %.3f %.3f" % (*accuracy(p, config, encoder, True, k=4), *accuracy(p, config, encoder, True)), flush=True)
            if o.checkpoints:
                model.save(os.path.join(o.checkpoints, "latest"), {k: v for k, v in p.items() if k.startswith("model")}, config, len(E))
    return {k: v.detach() for k, v in p.items()}


if __name__ == "__main__":
    main()
