"""The ranker: training steps, and the scores of labels. The weights are ours, see bench/src/gpu/prompts.rs."""

import json
import os

import torch

from .device import DEVICE
from .llama import Packed
from .padded import Padded

BLOCK = 64
GAIN = 4.0
# Values of every gradient that are compared, evenly spread.
COMPARED = 64


class Weights:
    """Runs of one stock, each from a block that the name tells."""

    def __init__(self, folder):
        path = os.path.join(folder, "stock.f32")
        stock = torch.from_file(path, size=os.path.getsize(path) // 4, dtype=torch.float32)
        self.stock = stock.to(DEVICE, copy=True)

    def take(self, name, shape):
        key, n = 0, torch.Size(shape).numel()
        for byte in name.encode():
            key = (key * 31 + byte) % (1 << 64)
        begin = key % (len(self.stock) // BLOCK) * BLOCK
        around = (n + len(self.stock) - 1) // len(self.stock)
        values = torch.cat([self.stock[begin:], self.stock.repeat(around)])[:n].clone().view(shape)
        return (1 + GAIN * values).bfloat16().float() if "norm" in name else values


def contestant(case, peer):
    """The network of a peer, the texts and the problem."""
    with open(os.path.join(case["folder"], "problem.json")) as file:
        problem = json.load(file)
    weights = Weights(case["folder"])
    model = Packed(problem, weights) if peer == "strongest" else Padded(problem, weights, peer == "hardened")
    return model, [torch.tensor(text, device=DEVICE) for text in problem["texts"]], problem


def ranker_step(case, peer):
    model, texts, problem = contestant(case, peer)
    parameters = list(model.parameters.values())
    fused = {"fused": True} if DEVICE == "cuda" else {}
    optimizer = torch.optim.AdamW(parameters, lr=problem["learning_rate"], weight_decay=0.0, **fused)

    def gradients():
        loss = 0.0
        with torch.enable_grad():
            for part in model.losses(texts):
                part.backward()
                loss = loss + part.detach()
        return loss

    def update():
        torch.nn.utils.clip_grad_norm_(parameters, problem["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()

    def run(turn):
        gradients()
        update()

    losses = [gradients().item()]
    gradient = [value for name in sorted(model.parameters) for value in some_values(model.parameters[name].grad)]
    update()
    losses.append(sum(part.item() for part in model.losses(texts)))
    return run, None, {"losses": losses, "gradient": gradient}


def some_values(tensor):
    count = min(COMPARED, tensor.numel())
    return tensor.flatten()[torch.arange(count, device=DEVICE) * tensor.numel() // count].double().tolist()


def ranker_scores(case, peer):
    model, texts, problem = contestant(case, peer)
    labels = torch.tensor(problem["labels"], device=DEVICE)
    run = lambda turn: model.scores(texts, labels).cpu()
    return run, None, {"scores": run(0).double().tolist()}
