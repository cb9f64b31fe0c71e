"""transformers and PEFT on the CPU, as peers of the ranker.

    ranker.py {reference,trimmed}

Reads one JSON command a line from standard input, answers with one JSON object a line (see bench/src/ranker).

reference  the stack as the public code uses it: eager attention, padding in front, two prompts together in training and six in
           scoring, logits of the whole vocabulary at every position, activations computed again in the backward pass
trimmed    the same stack with what it offers itself: SDPA, prompts of like length together, logits where they are needed,
           activations kept

make       writes a checkpoint of random weights in f32
prepare    loads it, and the initial low-rank factors
train      times optimiser steps over the same batch; says the losses
score      times the scoring of all prompts; says the scores
"""

import json
import os
import sys
import time

import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file

PADDING = 0


def make(folder, config):
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(config)).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.04)
    model.save_pretrained(folder)
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def peak_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class Stack:
    """A Llama with low-rank updates of queries and values."""

    def __init__(self, way, problem):
        self.trimmed, self.problem = way == "trimmed", problem
        attention = "sdpa" if self.trimmed else "eager"
        model = transformers.LlamaForCausalLM.from_pretrained(problem["model"], attn_implementation=attention)
        model.config.use_cache = False
        if not self.trimmed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        settings = dict(r=problem["rank"], lora_alpha=problem["alpha"], lora_dropout=0.0, task_type="CAUSAL_LM")
        self.model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], **settings))
        initial = load_file(problem["factors"])
        self.parameters = []
        for name, parameter in self.model.named_parameters():
            if "lora_" in name:
                parameter.data = initial[name.replace(".default", "")].clone()
                self.parameters.append(parameter)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=problem["learning_rate"], weight_decay=0.0)

    def forward(self, texts, kept):
        longest = max(len(text) for text in texts)
        ids = torch.stack([F.pad(text, (longest - len(text), 0), value=PADDING) for text in texts])
        mask = torch.stack([F.pad(torch.ones_like(text), (longest - len(text), 0)) for text in texts])
        return self.model(input_ids=ids, attention_mask=mask, logits_to_keep=kept).logits

    def together(self, texts, count):
        order = sorted(range(len(texts)), key=lambda i: len(texts[i])) if self.trimmed else list(range(len(texts)))
        return [order[first : first + count] for first in range(0, len(order), count)]

    def step(self, texts):
        """Gradient accumulation over small batches, as both do it; the mean over labels and ends of all texts."""
        self.model.train()
        total = 0.0
        for batch in self.together(texts, self.problem["trained_together"]):
            part = [texts[i] for i in batch]
            wanted = torch.stack([text[-2:] for text in part])
            if self.trimmed:
                logits = self.forward([text[:-1] for text in part], 2)
                loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
            else:
                logits = self.forward(part, 0)[:, :-1]
                labels = torch.full(logits.shape[:2], -100)
                labels[:, -2:] = wanted
                loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
            loss = loss / (2 * len(texts))
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    @torch.no_grad()
    def scores(self, texts, labels):
        self.model.eval()
        found = torch.empty(len(texts), len(labels))
        for batch in self.together(texts, self.problem["scored_together"]):
            logits = self.forward([texts[i] for i in batch], 1 if self.trimmed else 0)
            found[torch.tensor(batch)] = logits[:, -1][:, labels].float()
        return found


def main():
    stack, problem = None, None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "make":
            answer = make(command["folder"], command["config"])
        elif command["do"] == "prepare":
            problem = json.load(open(command["problem"]))
            torch.set_num_threads(command["threads"])
            stack, answer = Stack(sys.argv[1], problem), {}
        else:
            forget_peak()
            texts = [torch.tensor(text) for text in problem["examples" if command["do"] == "train" else "prompts"]]
            milliseconds, losses, scores = [], [], []
            for _ in range(command["repeats"]):
                start = time.perf_counter()
                if command["do"] == "train":
                    losses.append(stack.step(texts))
                else:
                    scores = stack.scores(texts, problem["labels"]).tolist()
                milliseconds.append((time.perf_counter() - start) * 1e3)
            answer = {"milliseconds": milliseconds, "losses": losses, "scores": scores, "bytes": peak_bytes()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
