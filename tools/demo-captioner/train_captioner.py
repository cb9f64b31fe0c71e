"""Trains the demo's captioner: a very small BLIP-2 that says what the shop's pictures show.

    python train_captioner.py --program ../../target/release/mllm4rec --shops shops --out captioner

The network is `Blip2ForConditionalGeneration` of the library transformers; nothing of it is changed or added. Its parameters start at
random and are trained together: cross-entropy of the caption's words after the projected queries and <s>, and, as AIDS that are
thrown away, readouts of the vision tower that are asked for shape, colour, pattern and count. Without them the language
model learns the words' frequencies first and says nothing about pictures for a long time.
"""
import argparse
import copy
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig, GenerationConfig, OPTConfig

from pictures import MEAN, SIDE, STD, WORDS, load, normalised

TRAIN_SEEDS = range(1000, 1100)
CHECK_SEEDS = range(620, 621)
SPECIAL = ["<unk>", "<pad>", "<s>", "</s>"]
UNK, PAD, BOS, EOS = range(4)
QUERIES = 8
KINDS = dict(shape=[s[0] for s in WORDS["shapes"]], colour=WORDS["colours"], pattern=WORDS["patterns"], count=["1", "2", "3", "4"])


def vocabulary():
    """A token for every word; `<image>` is the place of a query."""
    shapes = [word for pair in WORDS["shapes"] for word in pair]
    words = WORDS["counts"] + WORDS["colours"] + shapes + ["on"] + WORDS["patterns"][1:]
    return SPECIAL + list(dict.fromkeys(words)) + ["<image>"]


def save_tokenizer(folder, words):
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok.add_special_tokens(SPECIAL + ["<image>"])
    tok.save(os.path.join(folder, "tokenizer.json"))
    config = dict(tokenizer_class="PreTrainedTokenizerFast", unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=64)
    write_json(folder, "tokenizer_config.json", config)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def create(words, seed):
    """A model with random parameters."""
    torch.manual_seed(seed)
    width = 96
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=width, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=8, initializer_range=0.02
        ),
        qformer_config=Blip2QFormerConfig(
            vocab_size=len(words), hidden_size=width, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192, max_position_embeddings=16,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, cross_attention_frequency=2,
        ),
        text_config=OPTConfig(
            vocab_size=len(words), hidden_size=width, num_hidden_layers=2, ffn_dim=192, num_attention_heads=4, max_position_embeddings=64,
            do_layer_norm_before=True, dropout=0.0, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, tie_word_embeddings=True,
        ),
        num_query_tokens=QUERIES, image_text_hidden_size=width, image_token_index=len(words) - 1,
    )
    model = Blip2ForConditionalGeneration(config)
    generation = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, do_sample=False, num_beams=1, max_new_tokens=20)
    model.generation_config = model.language_model.generation_config = generation
    with torch.no_grad():
        model.query_tokens.normal_(std=0.5)  # equal queries would stay equal
        model.vision_model.embeddings.position_embedding[0, 1:] = waves(SIDE // 8, width)
    return model


def waves(side, width):
    """Sines and cosines of row and column: neighbouring patches begin with similar positions."""
    frequencies = 4.0 ** (-torch.arange(width // 4) / (width // 4 - 1) * 2) * math.pi / 2
    angles = torch.arange(side)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    return 0.3 * torch.cat([rows, columns], 2).reshape(side * side, width)


class Examples:
    """Pictures with the tokens of their captions and the numbers of their words."""

    def __init__(self, program, seeds, folder, words):
        self.pictures, rows = load(program, seeds, folder)
        number = {w: i for i, w in enumerate(words)}
        texts = [[number[w] for w in row["caption"].split()] + [EOS] for row in rows]
        length = max(map(len, texts))
        self.texts = torch.tensor([t + [PAD] * (length - len(t)) for t in texts])
        self.kinds = {kind: torch.tensor([values.index(row[kind]) for row in rows]) for kind, values in KINDS.items()}

    def batch(self, which):
        pixels = torch.from_numpy(normalised(self.pictures[which]))
        return pixels, self.texts[which], {kind: numbers[which] for kind, numbers in self.kinds.items()}


def losses(model, readouts, batch, image_token):
    """Cross-entropy of the caption's tokens, and of the readouts."""
    pixels, texts, kinds = batch
    n = len(texts)
    prompt = torch.tensor([image_token] * QUERIES + [BOS]).expand(n, -1)
    ids = torch.cat([prompt, texts[:, :-1]], 1)
    out = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    logits = out.logits[:, QUERIES:]
    words = F.cross_entropy(logits.flatten(0, 1), texts.flatten(), ignore_index=PAD)
    seen = readouts(out.vision_outputs.last_hidden_state.mean(1)).split([len(v) for v in KINDS.values()], 1)
    aids = sum(F.cross_entropy(scores, kinds[kind]) for kind, scores in zip(KINDS, seen))
    return words, aids


def save(model, words, folder):
    """The layout of the public checkpoints, in 16-bit floats."""
    copy.deepcopy(model).half().save_pretrained(folder)
    save_tokenizer(folder, words)
    picture = dict(
        do_convert_rgb=True, do_normalize=True, do_rescale=True, do_resize=True, image_mean=MEAN, image_processor_type="BlipImageProcessor", image_std=STD,
        processor_class="Blip2Processor", resample=3, rescale_factor=1 / 255, size=dict(height=SIDE, width=SIDE),
    )
    write_json(folder, "preprocessor_config.json", picture)


def right(model, examples, image_token, n=300):
    """The share of captions whose every token is the likeliest after the true ones before it: greedy search gives the same."""
    pixels, texts, _ = examples.batch(np.arange(n))
    with torch.no_grad():
        ids = torch.cat([torch.tensor([image_token] * QUERIES + [BOS]).expand(n, -1), texts[:, :-1]], 1)
        logits = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, QUERIES:]
    return ((logits.argmax(2) == texts) | (texts == PAD)).all(1).float().mean().item()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--program", default="mllm4rec", help="the binary that draws the shops")
    a.add_argument("--shops", default="shops", help="folder for their pictures")
    a.add_argument("--out", default="captioner")
    a.add_argument("--steps", type=int, default=5000)
    a.add_argument("--batch", type=int, default=32)
    a.add_argument("--lr", type=float, default=1.5e-3)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--threads", type=int, default=1)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    words = vocabulary()
    model = create(words, o.seed)
    readouts = torch.nn.Linear(model.config.vision_config.hidden_size, sum(map(len, KINDS.values())))
    print("parameters", sum(p.numel() for p in model.parameters()), "words", len(words), flush=True)
    examples = Examples(o.program, TRAIN_SEEDS, o.shops, words)
    checks = Examples(o.program, CHECK_SEEDS, o.shops, words)
    train(model, readouts, examples, checks, o)
    save(model, words, o.out)


def train(model, readouts, examples, checks, o):
    """AdamW; the learning rate rises over 200 steps and falls along half a cosine."""
    image_token = model.config.image_token_index
    parameters = [*model.parameters(), *readouts.parameters()]
    matrices = [p for p in parameters if p.dim() == 2]
    rest = [p for p in parameters if p.dim() != 2]
    opt = torch.optim.AdamW([dict(params=matrices, weight_decay=0.05), dict(params=rest, weight_decay=0)], betas=(0.9, 0.98))
    rng = np.random.default_rng(o.seed)
    order, start, sums = np.array([], int), time.time(), [0.0, 0.0]
    for step in range(o.steps):
        if len(order) < o.batch:
            order = rng.permutation(len(examples.pictures))
        which, order = order[: o.batch], order[o.batch :]
        for group in opt.param_groups:
            group["lr"] = o.lr * min(1, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / o.steps)))
        text, aids = losses(model, readouts, examples.batch(which), image_token)
        opt.zero_grad()
        (text + 0.25 * aids).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        opt.step()
        sums = [sums[0] + text.item() / 100, sums[1] + aids.item() / 100]
        if (step + 1) % 100 == 0:
            share = "  captions right %.3f" % right(model, checks, image_token) if (step + 1) % 500 == 0 else ""
            print("step %d  %.0f s  words %.4f  readouts %.4f%s" % (step + 1, time.time() - start, *sums, share), flush=True)
            sums = [0.0, 0.0]


if __name__ == "__main__":
    main()
