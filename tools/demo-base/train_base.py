"""Trains the demo's base: a tokenizer and a small Llama that can read a shop's prompts, with captions and without.

It sees shops of other seeds than the demo's only (TOKENIZER_SEEDS, TRAIN_SEEDS, CHECK_SEEDS), in which the same words stand for other
items: it can learn to compare descriptions and to follow the ring of categories, not what a shop sells.

    python train_base.py --out base

Losses: the answer's letter (not the sampled one, but the chances of all: the generator knows them) and </s>, the next token at a sample of
the positions (so that it is a language model of shop texts), and AIDS: small readouts of the inner layers, thrown away at the end, that
are asked for the steps on the way to the answer. One letter a prompt teaches a network of this size next to nothing.
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

MISREAD_PERCENT = 2  # captions that name another shape than the item shows, as a captioner's may
TRAIN_SEEDS = range(1000, 1000000)
CHECK_SEEDS = range(600, 620)


def chances(shop, seen, pool, captions):
    """What an ideal reader would answer: the chance of each candidate, given the history, up to what the titles (and captions) tell."""
    s, items = shop.s, shop.items
    n_shape, n_cat, t = s["shapes"], s["categories"], s["taste_percent"] / 100
    if t == 1:
        t = 0.97
    likely = (t + (1 - t) / n_shape) / ((1 - t) / n_shape)  # of a purchase, if its shape is the taste
    weight = [1.0] * n_shape
    for i in seen:
        weight[items[i]["shape"]] *= likely
    total = sum(weight)
    last = items[seen[-1]]["category"]
    first, second = s["first_percent"] / 100, s["second_percent"] / 100
    out = []
    for i in pool:
        step = (items[i]["category"] - last) % n_cat
        c = (1 - first - second) / n_cat + (first if step == 1 else second if step == 2 else 0)
        out.append(c * (t * weight[items[i]["shape"]] / total + (1 - t) / n_shape if captions else 1))
    total = sum(out)
    return [x / total for x in out]


def example(rng, shop, user, k, history, captions, encoder, head=True, first=0):
    """One prompt: a prefix of a customer's purchases, k candidates like a retriever's, the next purchase among them."""
    items, n_shape, n_cat = shop.items, shop.s["shapes"], shop.s["categories"]
    at = rng.randrange(min(history, len(user["items"]) - 1), len(user["items"]))
    seen = user["items"][max(0, at - history) : at]
    target = user["items"][at]
    last = items[seen[-1]]["category"]
    pool = [target]
    while len(pool) < k:
        r = rng.random()
        c = (last + 1) % n_cat if r < 0.55 else (last + 2) % n_cat if r < 0.85 else rng.randrange(n_cat)
        m = rng.randrange(n_shape) if rng.random() < 0.93 else user["taste"]
        i = c * n_shape + m
        if i not in pool and i not in user["items"][:at]:
            pool.append(i)
    rng.shuffle(pool)
    ids, ends = encoder.prompt([items[i] for i in seen], [items[i] for i in pool], captions, head, first)
    shown = {items[i]["shape"] for i in seen}
    follows = [0.15 / n_cat] * n_cat
    follows[(last + 1) % n_cat] += 0.6
    follows[(last + 2) % n_cat] += 0.25
    return dict(
        ids=ids,
        ends=ends,
        first=first,
        target=pool.index(target),
        chances=chances(shop, seen, pool, captions),
        last_category=last,
        match=[float(items[i]["shape"] in shown) for i in pool],
        ring=[ring(items[i]["category"] - last, n_cat) for i in pool],
        follows=follows,
    )


def misread(rng, shop):
    """Makes some captions wrong; what customers buy does not change."""
    for item in shop.items:
        if rng.random() < MISREAD_PERCENT / 100:
            item["caption"] = rng.choice(shop.items)["caption"]


def ring(steps, categories):
    """1 and 2: so many steps further in the ring of categories; 0: elsewhere."""
    steps %= categories
    return steps if steps in (1, 2) else 0


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
        while len(rows) < stage["batch"] * (1 if captions else 2):
            if not users:
                shop = Shop(shop_seed, users=24, taste_percent=stage["taste_percent"])
                shop_seed += 1
                misread(rng, shop)
                users = list(shop.users)
            rows.append(example(rng, shop, users.pop(), k, history, captions, encoder, head, first))
        yield collate(rows, encoder), captions


def collate(rows, encoder):
    T = max(len(r["ids"]) for r in rows) + 2
    ids = torch.zeros(len(rows), T, dtype=torch.long)
    for b, r in enumerate(rows):
        ids[b, : len(r["ids"]) + 2] = torch.tensor(r["ids"] + [encoder.letters[r["first"] + r["target"]], 2])
    out = {k: torch.tensor([r[k] for r in rows]) for k in ("ends", "target", "chances", "last_category", "match", "ring", "follows")}
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
    dict(steps=1000, lr=(2e-3, 1.7e-3), candidates=(2, 5), history=(1, 3), taste_percent=100, batch=32, instruction_percent=0, any_letter_percent=0, captions_percent=75),
    dict(steps=800, lr=(1.5e-3, 1.5e-3), candidates=(4, 12), history=(2, 5), taste_percent=85, batch=24, instruction_percent=100, any_letter_percent=50, captions_percent=75),
    dict(steps=1200, lr=(1.5e-3, 1e-3), candidates=(12, 20), history=(3, 6), taste_percent=60, batch=16, instruction_percent=100, any_letter_percent=0, captions_percent=65),
    dict(steps=2400, lr=(1e-3, 1e-5), candidates=(20, 20), history=(4, 6), taste_percent=50, batch=16, instruction_percent=100, any_letter_percent=0, captions_percent=50),
]


class Aids:
    """What the inner layers are asked for in training. Layer numbers count from 0, of four."""

    def __init__(self, encoder, vocab):
        first = lambda words: torch.tensor([encoder.ids(" " + w)[0] for w in words])
        self.pool = encoder.ids("Candidate pool:\n")[0]
        self.categories = first(WORDS["categories"])
        self.category_of = torch.full((vocab,), -1)
        self.category_of[self.categories] = torch.arange(len(self.categories))
        self.looks = torch.zeros(vocab, dtype=torch.bool)
        self.looks[first([one for one, _ in WORDS["shapes"]] + WORDS["colours"])] = True

    @staticmethod
    def create(width):
        """The readouts: weights and a bias in the last column, or a map into the space of the embeddings."""
        p = {name: torch.zeros(width + 1) for name in ("match", "score", "again")}
        p.update({name: torch.zeros(3, width + 1) for name in ("ring", "ring_word")})
        p.update({name: torch.eye(width) for name in ("letter", "follows")})
        return p

    def losses(self, p, layers, b, captions):
        """Name -> (loss, weight)."""
        E = p["model.embed_tokens.weight"]
        norm = lambda x: F.rms_norm(x, (x.shape[-1],))
        ask = lambda x, q: norm(x) @ q[..., :-1].t() + q[..., -1]
        rows = torch.arange(len(b["ids"]))
        x = b["ids"][:, :-1]
        in_pool = (x == self.pool).cumsum(1) > 0
        # Where the pool begins: which category comes next?
        start = layers[0][rows, (x == self.pool).int().argmax(1)]
        follows = (F.log_softmax(norm(start) @ p["follows"] @ E[self.categories].T, 1) * b["follows"]).sum(1).mean()
        # At the name of a candidate's category: is it one of those?
        place = self.category_of[x]
        named = in_pool & (place >= 0)
        steps = ((place - b["last_category"][:, None]) % len(self.categories))[named]
        steps = torch.where((steps == 1) | (steps == 2), steps, 0)
        # At the end of a candidate: the same, its letter, and how likely it is.
        ends = layers[2][rows[:, None], b["ends"]]
        out = dict(
            follows=((b["follows"] * b["follows"].log()).sum(1).mean() - follows, 1),
            ring_word=(F.cross_entropy(ask(layers[1][named], p["ring_word"]), steps), 1),
            ring=(F.cross_entropy(ask(ends, p["ring"]).flatten(0, 1), b["ring"].flatten()), 1),
            own=(F.cross_entropy((norm(ends) @ p["letter"] @ E.T).flatten(0, 1), b["letters"].flatten()), 0.3),
            score=(-(F.log_softmax(ask(ends, p["score"]), 1) * b["chances"]).sum(1).mean(), 0.5),
        )
        if captions:
            # Does the candidate show a shape of the history; and at its words: do they stand there?
            asked = in_pool & self.looks[x]
            seen = ((x[:, :, None] == x[:, None, :]) & ~in_pool[:, None, :]).any(2)
            out["match"] = (F.binary_cross_entropy_with_logits(ask(ends, p["match"]), b["match"]), 1)
            out["again"] = (F.binary_cross_entropy_with_logits(ask(layers[1][asked], p["again"]), seen[asked].float()), 1)
        return out


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
    p.update(Aids.create(config["hidden_size"]))
    checkpoint = lambda n: os.path.join(o.checkpoints, "stage-%d.safetensors" % n)
    if o.first:
        p = load_file(checkpoint(o.first - 1))
    print("parameters", sum(t.numel() for k, t in p.items() if k.startswith("model")), flush=True)
    for number in range(o.first, len(STAGES)):
        p = train(p, config, encoder, number, o)
        if o.checkpoints:
            os.makedirs(o.checkpoints, exist_ok=True)
            save_file(p, checkpoint(number))
        model.save(o.out, {k: v for k, v in p.items() if k.startswith("model")}, config, o.vocab)


def all_losses(p, config, b, captions, aids):
    """Name -> (loss, weight); letter and score are cross-entropies against the true chances."""
    ids, last = b["ids"], b["last"]
    B, T = ids.shape
    E = p["model.embed_tokens.weight"]
    layers = []
    h = model.forward(p, config, ids[:, :-1], layers_out=layers)
    rows = torch.arange(B)
    pick = (torch.rand(B, T - 1) < 0.15) & (torch.arange(T - 1)[None] < last[:, None])
    return dict(
        letter=(-(F.log_softmax(h[rows, last] @ E.T, -1).gather(1, b["letters"]) * b["chances"]).sum(1).mean(), 1),
        eos=(F.cross_entropy(h[rows, last + 1] @ E.T, ids[rows, last + 2]), 0.2),
        lm=(F.cross_entropy(h[pick] @ E.T, ids[:, 1:][pick]), 0.3),
        **aids.losses(p, layers, b, captions),
    )


def train(p, config, encoder, number, o):
    """One stage: fresh optimiser, its own examples and learning rates (half a cosine from the first to the second)."""
    stage = STAGES[number]
    torch.manual_seed(o.seed * 100 + number)
    p = {k: v.clone().requires_grad_(True) for k, v in p.items()}
    decay = [t for t in p.values() if t.dim() == 2]
    opt = torch.optim.AdamW([dict(params=decay, weight_decay=0.05), dict(params=[t for t in p.values() if t.dim() != 2], weight_decay=0)], betas=(0.9, 0.98), eps=1e-8)
    aids = Aids(encoder, len(p["model.embed_tokens.weight"]))
    start, sums = time.time(), {}
    for step, (b, captions) in enumerate(batches(o.seed, number, stage, encoder)):
        if step == stage["steps"]:
            break
        high, low = stage["lr"]
        for g in opt.param_groups:
            g["lr"] = min(1, (step + 1) / 100) * (low + (high - low) * 0.5 * (1 + math.cos(math.pi * step / stage["steps"])))
        losses = all_losses(p, config, b, captions, aids)
        opt.zero_grad()
        sum(loss * weight for loss, weight in losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        opt.step()
        ideal = -(b["chances"] * b["chances"].log()).sum(1).mean().item()
        for name, (loss, _) in losses.items():
            over = ideal if name in ("letter", "score") else 0
            sums.setdefault((captions, name), []).append(loss.item() - over)
        if (step + 1) % 100 == 0:
            for c in (True, False):
                means = ["%s %.3f" % (name, sum(v) / len(v)) for (with_captions, name), v in sums.items() if with_captions == c]
                print("stage %d step %d  %.0f s  captions %s  %s" % (number, step + 1, time.time() - start, "yes" if c else "no", "  ".join(means)), flush=True)
            sums = {}
        if (step + 1) % 400 == 0 or step + 1 == stage["steps"]:
            print("   check (first, mrr): k=20 %.3f %.3f  k=20, no captions %.3f %.3f" % (*accuracy(p, config, encoder, True), *accuracy(p, config, encoder, False)), flush=True)
    return {k: v.detach() for k, v in p.items()}


if __name__ == "__main__":
    main()
