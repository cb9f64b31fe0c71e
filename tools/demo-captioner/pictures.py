"""Pictures and truths of made-up shops, drawn by `mllm4rec shop`, so that drawing exists once."""
import csv
import json
import os
import subprocess

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = json.load(open(os.path.join(HERE, "../../cli/src/demo/words.json"), encoding="utf-8"))
SIDE = 64
# The mean and the deviation of CLIP's training pictures, as in the public checkpoints.
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


def load(program, seeds, folder):
    """(pictures uint8 [n, 64, 64, 3], rows of truth.csv) of the shops of these seeds; drawn into `folder` unless they are there."""
    pictures, rows = [], []
    for seed in seeds:
        shop = os.path.join(folder, str(seed))
        if not os.path.exists(os.path.join(shop, "truth.csv")):
            subprocess.run([program, "shop", "--seed", str(seed), "--out", shop], check=True)
        with open(os.path.join(shop, "truth.csv"), encoding="utf-8") as f:
            for row in csv.DictReader(f):
                pictures.append(np.asarray(Image.open(os.path.join(shop, "pictures", row["item_id"] + ".png")).convert("RGB")))
                rows.append(row)
    return np.stack(pictures), rows


def normalised(pictures):
    """What a BLIP-2 model takes: f32 [n, 3, 64, 64]. The pictures have the model's size, so nothing is resized."""
    scaled = (pictures.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
