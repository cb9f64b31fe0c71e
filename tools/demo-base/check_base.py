"""Measures a base on shops that it has not seen: NDCG@10 of shuffled candidates, with captions and without, beside an ideal reader.

    python check_base.py --model ../../models/demo-base

Prompts are those of `train_base.py`: 20 candidates such as a retriever's, the next purchase among them. `--misread 5` makes 5 of 100
captions wrong.
"""
import argparse
import math
import os
import random

import torch
from tokenizers import Tokenizer

import model
import train_base
from prompt import Encoder
from shop import Shop


def gain(scores, target):
    """1 / log2(rank + 1) of the target, 0 from rank 11 on. Among equals the first comes first."""
    rank = 1 + sum(s > scores[target] or (s == scores[target] and n < target) for n, s in enumerate(scores))
    return 1 / math.log2(rank + 1) if rank <= 10 else 0.0


def scores(p, config, encoder, rows):
    """Of every prompt the logits of its candidates' letters."""
    b = train_base.collate(rows, encoder)
    with torch.no_grad():
        h = model.forward(p, config, b["ids"][:, :-2])
        letters = p["model.embed_tokens.weight"][encoder.letters]
        return (h[torch.arange(len(h)), b["last"]] @ letters.T).tolist()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--model", default="base")
    a.add_argument("--seeds", type=int, nargs="+", default=list(range(610, 620)))
    a.add_argument("--users", type=int, default=100, help="of each shop")
    a.add_argument("--misread", type=float, default=0.0, help="percent of wrong captions")
    a.add_argument("--threads", type=int, default=1)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    train_base.MISREAD_PERCENT = o.misread
    p, config = model.load(o.model)
    encoder = Encoder(Tokenizer.from_file(os.path.join(o.model, "tokenizer.json")))
    for captions in (True, False):
        rng, gains, ideal = random.Random(5), [], []
        for seed in o.seeds:
            shop = Shop(seed, users=o.users)
            train_base.misread(rng, shop)
            rows = [train_base.example(rng, shop, user, 20, 6, captions, encoder) for user in shop.users]
            for first in range(0, len(rows), 20):
                part = rows[first : first + 20]
                gains += [gain(s, row["target"]) for s, row in zip(scores(p, config, encoder, part), part)]
            ideal += [gain(row["chances"], row["target"]) for row in rows]
        mean = sum(gains) / len(gains)
        error = math.sqrt(sum((g - mean) ** 2 for g in gains)) / len(gains)
        words = "with captions" if captions else "without captions"
        print("%-16s N@10 %.3f (standard error %.3f), an ideal reader %.3f, %d prompts" % (words, mean, error, sum(ideal) / len(ideal), len(gains)))


if __name__ == "__main__":
    main()
