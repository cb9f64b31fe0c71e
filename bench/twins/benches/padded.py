"""A Llama by transformers, four-bit weights of bitsandbytes, low-rank updates of PEFT, padded prompts: as it is published, and
hardened. On the CPU it computes in float32, and bitsandbytes does not round what it decodes there to bfloat16 everywhere."""

import torch
import torch.nn.functional as F

from .device import DEVICE, Absent
from .nf4 import bitsandbytes

# Prompts that are scored together.
BATCH = 16


def libraries():
    bnb = bitsandbytes()
    try:
        import peft
        import transformers
    except Exception as e:
        raise Absent(f"{getattr(e, 'name', None) or 'a package'}: {e}") from e
    return bnb, peft, transformers


def four_bit(bnb, linear, values, dtype):
    """A linear layer of bitsandbytes that decodes to bfloat16 and multiplies in `dtype`."""
    shape = linear.in_features, linear.out_features
    layer = bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=dtype, quant_type="nf4")
    settings = dict(requires_grad=False, blocksize=64, compress_statistics=True, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(values.bfloat16(), **settings)
    return layer.to(DEVICE)


class Padded:
    """`hardened` or as published."""

    def __init__(self, problem, weights, hardened):
        bnb, peft, transformers = libraries()
        self.hardened, self.most = hardened, problem["micro_batch_tokens"]
        self.dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
        model = self.frozen(bnb, transformers, problem["config"], weights)
        if not hardened:
            model = peft.prepare_model_for_kbit_training(
                model, use_gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        lora = dict(r=problem["rank"], lora_alpha=problem["alpha"], lora_dropout=0.0, task_type="CAUSAL_LM")
        self.model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], **lora))
        named = self.model.named_parameters()
        self.parameters = {name.replace(".default", ""): parameter for name, parameter in named if "lora_" in name}
        for name, parameter in self.parameters.items():
            parameter.data = weights.take(name, parameter.shape)

    def frozen(self, bnb, transformers, config, weights):
        """The network without updates."""
        config = transformers.LlamaConfig.from_dict(config)
        config._attn_implementation = "sdpa" if self.hardened else "eager"
        config.use_cache = False
        torch.set_default_dtype(self.dtype)
        try:
            with torch.device(DEVICE):
                model = transformers.LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(torch.float32)
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                values = weights.take(f"{name}.weight", module.weight.shape)
                model.set_submodule(name, four_bit(bnb, module, values, self.dtype))
        for name, parameter in model.named_parameters():
            if not isinstance(parameter, bnb.nn.Params4bit):
                parameter.copy_(weights.take(name, parameter.shape))
                parameter.requires_grad_(False)
        model.is_loaded_in_4bit = True  # PEFT asks
        return model

    def forward(self, texts, kept):
        """Logits of texts padded in front, at the last `kept` positions or at all."""
        longest = max(len(text) for text in texts)
        ids = torch.stack([F.pad(text, (longest - len(text), 0)) for text in texts])
        mask = torch.stack([F.pad(torch.ones_like(text), (longest - len(text), 0)) for text in texts])
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            return self.model(input_ids=ids, attention_mask=mask, logits_to_keep=kept).logits

    def losses(self, texts):
        """The parts of the mean loss: the last two tokens of every text."""
        self.model.train()
        if not self.hardened:
            logits = self.forward(texts, 0)[:, :-1].float()
            wanted = torch.full(logits.shape[:2], -100, device=DEVICE)
            wanted[:, -2:] = torch.stack([text[-2:] for text in texts])
            yield F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            return
        for run in self.runs(texts):
            logits = self.forward([text[:-1] for text in run], 2).float()
            wanted = torch.cat([text[-2:] for text in run])
            yield F.cross_entropy(logits.flatten(0, 1), wanted, reduction="sum") / (2 * len(texts))

    def runs(self, texts):
        """Texts of about the same length, no more tokens and padding together than are computed at a time."""
        run = []
        for text in sorted(texts, key=len, reverse=True):
            if run and (len(run) + 1) * len(run[0]) > self.most:
                yield run
                run = []
            run.append(text)
        yield run

    def scores(self, texts, labels):
        self.model.eval()
        order = range(len(texts))
        if self.hardened:
            order = sorted(order, key=lambda i: len(texts[i]))
        found = torch.empty(len(texts), len(labels), device=DEVICE)
        for first in range(0, len(texts), BATCH):
            batch = order[first : first + BATCH]
            logits = self.forward([texts[i][:-1] for i in batch], 1 if self.hardened else 0)
            found[torch.tensor(list(batch), device=DEVICE)] = logits[:, -1][:, labels].float()
        return found
