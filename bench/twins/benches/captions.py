"""Captions by transformers."""

import torch

from .device import DEVICE, Absent, normals


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
