"""Measures a captioner on shops that it has not seen: which share of captions, and of each kind of word, it gets right.

    python check_captioner.py --program ../../target/release/mllm4rec --model ../../models/demo-captioner

The captions come from the public library's greedy search over the saved files, as `mllm4rec demo` makes them.
"""
import argparse
import time

import torch
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

from pictures import WORDS, load, normalised

COUNTS = {word: str(n + 1) for n, word in enumerate(WORDS["counts"])}
SINGULAR = {form: pair[0] for pair in WORDS["shapes"] for form in pair}


def parsed(caption):
    """The kinds of words of "three red stars on stripes"; None for one that does not stand at its place."""
    words = caption.split()
    words += [""] * (5 - len(words))
    pattern = "plain" if words[3:] == ["", ""] else words[4] if words[3] == "on" else None
    return dict(count=COUNTS.get(words[0]), colour=words[1], shape=SINGULAR.get(words[2]), pattern=pattern)


def captions(model, tokenizer, pictures, batch=100):
    out = []
    for first in range(0, len(pictures), batch):
        pixels = torch.from_numpy(normalised(pictures[first : first + batch]))
        with torch.no_grad():
            ids = model.generate(pixel_values=pixels, max_new_tokens=20)
        out += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return out


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--program", default="mllm4rec", help="the binary that draws the shops")
    a.add_argument("--shops", default="shops", help="folder for their pictures")
    a.add_argument("--model", default="captioner")
    a.add_argument("--seeds", type=int, nargs="+", default=[7, 42, 101, 621, 622, 623])
    a.add_argument("--threads", type=int, default=1)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    model = Blip2ForConditionalGeneration.from_pretrained(o.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(o.model)
    pictures, rows = load(o.program, o.seeds, o.shops)
    start = time.time()
    read = captions(model, tokenizer, pictures)
    print("%d pictures in %.0f s" % (len(rows), time.time() - start))
    print("whole caption  %.4f" % (sum(text == row["caption"] for text, row in zip(read, rows)) / len(rows)))
    for kind in ("shape", "colour", "pattern", "count"):
        print("%-13s  %.4f" % (kind, sum(parsed(text)[kind] == row[kind] for text, row in zip(read, rows)) / len(rows)))
    wrong = [(row["caption"], text) for text, row in zip(read, rows) if text != row["caption"]]
    for truth, text in wrong[:12]:
        print("  %s -> %s" % (truth, text))


if __name__ == "__main__":
    main()
