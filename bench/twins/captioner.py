"""transformers' BLIP-2 on the CPU, as a peer for the benches.

Reads one JSON command a line from standard input, answers with one JSON object a line (see bench/src/captioner).

make      writes a checkpoint of about 100 million random weights and pictures for it
pictures  writes pictures for a checkpoint that is there
caption   times generate(): greedy, no prompt
"""

import json
import os
import sys
import time

import torch
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def make(folder):
    """A checkpoint in between: large enough that products count, small enough for two cores."""
    torch.manual_seed(1)
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=512, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=8, image_size=224, patch_size=14
        ).to_dict(),
        qformer_config=Blip2QFormerConfig(
            hidden_size=512, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8, encoder_hidden_size=512
        ).to_dict(),
        text_config=OPTConfig(
            vocab_size=50272, hidden_size=768, ffn_dim=3072, num_hidden_layers=6, num_attention_heads=12,
            word_embed_proj_dim=768, bos_token_id=2, eos_token_id=50118, pad_token_id=1,
        ).to_dict(),
        num_query_tokens=32,
        image_token_index=50265,
    )
    model = Blip2ForConditionalGeneration(config).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower():
                parameter.copy_(torch.randn_like(parameter) * 0.03)
    model.save_pretrained(folder, safe_serialization=True)
    return sum(parameter.numel() for parameter in model.parameters())


def pictures(folder, count):
    """Smooth noise, normalised."""
    side = json.load(open(os.path.join(folder, "config.json")))["vision_config"]["image_size"]
    torch.manual_seed(2)
    coarse = torch.randn(count, 3, 8, 8)
    pixels = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").contiguous()
    return pixels


class Models:
    """Loaded checkpoints by folder and dtype."""

    def __init__(self):
        self.loaded = {}

    def get(self, folder, dtype):
        if (folder, dtype) not in self.loaded:
            model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=DTYPES[dtype])
            self.loaded[folder, dtype] = model.eval()
        return self.loaded[folder, dtype]


def caption(models, command):
    model = models.get(command["model"], command["dtype"])
    pixels = load_file(command["pixels"])["pixels"].to(DTYPES[command["dtype"]])
    ends = model.generation_config.eos_token_id or model.config.text_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    settings = dict(max_new_tokens=command["max_tokens"], do_sample=False, num_beams=1, eos_token_id=ends, pad_token_id=1)
    milliseconds = []
    for repeat in range(command["repeats"] + 1):
        start = time.perf_counter()
        out = model.generate(pixel_values=pixels, **settings)
        if repeat > 0:
            milliseconds.append((time.perf_counter() - start) * 1e3)
    # Newer versions return the prompt too: a place for every query, and the token that begins a text.
    prompt = model.config.num_query_tokens + 1 if out[0, 0] == model.config.image_token_index else 0
    tokens = []
    for row in out[:, prompt:].tolist():
        end = next((i for i, t in enumerate(row) if t in ends), len(row))
        tokens.append(row[:end])
    return {"milliseconds": milliseconds, "tokens": tokens}


def main():
    models = Models()
    for line in sys.stdin:
        command = json.loads(line)
        answer = {}
        with torch.no_grad():
            if command["do"] == "make":
                answer = {"parameters": make(command["folder"])}
            elif command["do"] == "pictures":
                save_file({"pixels": pictures(command["folder"], command["count"])}, command["pixels"])
            else:
                torch.set_num_threads(command["threads"])
                answer = caption(models, command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
