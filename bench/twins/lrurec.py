"""LRURec in PyTorch, three ways to lay out a batch, as a peer for the benches.

    lrurec.py {all,labelled,packed} PROBLEM.json WEIGHTS.safetensors

all       padded to max_length, scores at every position, as the public implementation does it
labelled  padded to max_length, scores only where there is a label
packed    no padding at all: rows of all sequences one after the other

Reads one JSON command a line from standard input, answers with one JSON object a line (see bench/src/contest.rs).
The equations are those of model/src/retriever/network.rs; complex weights are multiplied as complex numbers, as in the public
implementation. `golden` compares with the golden file of the parity tests.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

EPS = 1e-5


def complex_parameters(tensors):
    """Parameters from `name`, or from `name.real` and `name.imag`."""
    out = {}
    for name, value in tensors.items():
        if name.endswith(".real"):
            stem = name.removesuffix(".real")
            out[stem] = torch.complex(value, tensors[stem + ".imag"])
        elif not name.endswith(".imag"):
            out[name] = value.clone()
    return {name: torch.nn.Parameter(value) for name, value in out.items()}


def norm(p, name, x):
    return F.layer_norm(x, x.shape[-1:], p[name + ".weight"], p[name + ".bias"], EPS)


def scan_padded(u, lam, mask):
    """The recurrence over [batch, length, state] by doubling; the length is padded in front to a power of two."""
    batch, length, state = u.shape
    levels = (length - 1).bit_length()
    front = (1 << levels) - length
    h = F.pad(u, (0, 0, front, 0))
    mask = F.pad(mask, (front, 0))
    powers = lam.unsqueeze(0)
    for level in range(levels):
        half = 1 << level
        blocks = h.reshape(-1, 2 * half, state)
        open_ = mask.reshape(-1, 2 * half)[:, half - 1].reshape(-1, 1, 1)
        first, second = blocks[:, :half], blocks[:, half:]
        h = torch.cat([first, second + powers * first[:, -1:] * open_], 1)
        powers = torch.cat([powers, powers * powers[-1]], 0)
    return h.reshape(batch, -1, state)[:, front:]


def scan_packed(u, lam, place, longest):
    """The recurrence over [rows, state]; `place` is the position of every row in its sequence."""
    h, power, shift = u, lam, 1
    while shift < longest:
        inside = (place[shift:] >= shift).unsqueeze(1)
        h = torch.cat([h[:shift], h[shift:] + power * h[:-shift] * inside], 0)
        power, shift = power * power, 2 * shift
    return h


class LruRec:
    def __init__(self, problem, tensors, dropout):
        self.layers = problem["layers"]
        self.length = problem["max_length"]
        self.p = complex_parameters(tensors)
        self.dropout = dropout
        spared = lambda name: "bias" in name or "layer_norm" in name
        groups = [
            {"params": [v for k, v in self.p.items() if not spared(k)], "weight_decay": problem["weight_decay"]},
            {"params": [v for k, v in self.p.items() if spared(k)], "weight_decay": 0.0},
        ]
        self.max_norm = problem["max_grad_norm"]
        self.optimizer = torch.optim.AdamW(groups, lr=problem["learning_rate"], eps=problem["eps"])

    def drop(self, x):
        return F.dropout(x, self.dropout, self.dropout > 0)

    def encode(self, ids, scan):
        p = self.p
        h = norm(p, "embedding.layer_norm", self.drop(F.embedding(ids, p["embedding.token.weight"])))
        for layer in range(self.layers):
            name = f"model.lru_blocks.{layer}."
            lru, ffn = name + "lru_layer.", name + "feed_forward."
            nu, theta, gamma = p[lru + "params_log"].exp()
            lam = torch.exp(torch.complex(-nu, theta))
            u = F.linear(h.to(torch.cfloat), p[lru + "in_proj.weight"], p[lru + "in_proj.bias"]) * gamma
            y = F.linear(scan(u, lam), p[lru + "out_proj.weight"], p[lru + "out_proj.bias"]).real
            h = norm(p, lru + "layer_norm", self.drop(y) + h)
            f = self.drop(F.gelu(F.linear(h, p[ffn + "w_1.weight"], p[ffn + "w_1.bias"])))
            f = self.drop(F.linear(f, p[ffn + "w_2.weight"], p[ffn + "w_2.bias"]))
            h = norm(p, ffn + "layer_norm", f + h)
        return h

    def scores(self, h):
        return torch.matmul(h, self.p["embedding.token.weight"].T) + self.p["model.bias"]

    def update(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.p.values(), self.max_norm)
        self.optimizer.step()
        return loss.detach()


class Padded(LruRec):
    """Batches of [sequences, max_length], padded in front; id 0 is padding."""

    def __init__(self, problem, tensors, dropout, everywhere):
        super().__init__(problem, tensors, dropout)
        self.everywhere = everywhere

    def rows(self, ids):
        mask = ids > 0
        return self.encode(ids, lambda u, lam: scan_padded(u, lam, mask))

    def batch(self, windows):
        ids = torch.zeros(len(windows), self.length, dtype=torch.long)
        labels = torch.zeros_like(ids)
        for row, window in enumerate(windows):
            n = len(window) - 1
            if n:
                ids[row, -n:] = torch.tensor(window[:-1])
            m = min(len(window), self.length)
            labels[row, -m:] = torch.tensor(window[-m:])
        return ids, labels

    def loss(self, windows):
        return self.loss_of(*self.batch(windows))

    def loss_of(self, ids, labels):
        h = self.rows(ids)
        if self.everywhere:
            scores = self.scores(h)
            return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1), ignore_index=0)
        labelled = labels > 0
        return F.cross_entropy(self.scores(h[labelled]), labels[labelled])

    def top(self, histories, k):
        ids = torch.zeros(len(histories), self.length, dtype=torch.long)
        for row, history in enumerate(histories):
            ids[row, -len(history):] = torch.tensor(history[-self.length:])
        h = self.rows(ids)
        scores = self.scores(h)[:, -1] if self.everywhere else self.scores(h[:, -1])
        scores[:, 0] = -1e9
        if self.everywhere:
            every = torch.arange(len(histories))
            for place in range(self.length):
                scores[every, ids[:, place]] = -1e9
        else:
            scores.scatter_(1, ids, -1e9)
        return scores.topk(k, dim=1).indices


class Packed(LruRec):
    """Rows of all sequences one after the other."""

    def rows(self, sequences):
        lengths = [len(s) for s in sequences]
        h = self.encode_packed(*self.pack(sequences, lengths))
        return h, torch.tensor(lengths).cumsum(0) - 1

    def pack(self, sequences, lengths):
        ids = torch.tensor([i for s in sequences for i in s])
        return ids, torch.cat([torch.arange(n) for n in lengths]), max(lengths)

    def encode_packed(self, ids, place, longest):
        return self.encode(ids, lambda u, lam: scan_packed(u, lam, place, longest))

    def loss(self, windows):
        return self.loss_of(*self.batch(windows))

    def loss_of(self, ids, place, longest, labels):
        return F.cross_entropy(self.scores(self.encode_packed(ids, place, longest)), labels)

    def batch(self, windows):
        sequences, labels = [], []
        for window in windows:
            if len(window) - 1 < self.length:
                sequences.append([0])
                labels.append(window[0])
            if len(window) > 1:
                sequences.append(window[:-1])
                labels.extend(window[1:])
        return *self.pack(sequences, [len(s) for s in sequences]), torch.tensor(labels)

    def top(self, histories, k):
        recent = [history[-self.length:] for history in histories]
        h, last = self.rows(recent)
        scores = self.scores(h[last])
        scores[:, 0] = -1e9
        rows = torch.tensor([row for row, history in enumerate(recent) for _ in history])
        scores[rows, torch.tensor([i for history in recent for i in history])] = -1e9
        return scores.topk(k, dim=1).indices


def make(layout, problem, tensors, dropout):
    if layout == "packed":
        return Packed(problem, tensors, dropout)
    return Padded(problem, tensors, dropout, layout == "all")


def golden(layout, folder, name):
    """The largest deviations from the golden file: losses of some steps, and the first gradients."""
    with open(f"{folder}/{name}.json") as file:
        settings = json.load(file)
    c, tensors = settings["config"], load_file(f"{folder}/{name}.safetensors")
    params = {k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")}
    problem = {
        "layers": c["blocks"], "max_length": c["max_len"], "weight_decay": c["wd"], "learning_rate": c["lr"],
        "eps": c["eps"], "max_grad_norm": c["max_norm"],
    }
    model = make(layout, problem, params, 0.0)
    pairs = zip(tensors["input_ids"].tolist(), tensors["labels"].tolist())
    windows = [[i for i in ids if i] + labels[-1:] for ids, labels in pairs]
    model.loss(windows).backward()
    worst = 0.0
    for key, value in model.p.items():
        for part in ("real", "imag") if value.is_complex() else ("",):
            wanted = tensors.get("grad." + (f"{key}.{part}" if part else key))
            found = getattr(value.grad, part) if part else value.grad
            if wanted is not None:
                worst = max(worst, ((found - wanted).abs() / wanted.abs().max().clamp(min=1e-3)).max().item())
    losses = [model.update(model.loss(windows)).item() for _ in range(c["steps"])]
    return {"loss": max(abs(a - b) for a, b in zip(losses, settings["losses"])), "gradient": worst}


def forget_peak():
    """Lets the system count this process's peak memory anew, where it can."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def timed(work):
    start = time.perf_counter()
    result = work()
    return (time.perf_counter() - start) * 1e3, result


def main():
    layout, problem_path, weights_path = sys.argv[1:]
    with open(problem_path) as file:
        problem = json.load(file)
    tensors = load_file(weights_path)
    torch.manual_seed(problem["seed"])
    model = make(layout, problem, tensors, problem["dropout"])
    for line in sys.stdin:
        command = json.loads(line)
        torch.set_num_threads(command["threads"])
        what = command["what"]
        if what == "golden":
            answer = golden(layout, command["folder"], command["name"])
        elif what == "curve":
            fresh = make(layout, problem, tensors, 0.0)
            answer = {"losses": [fresh.update(fresh.loss(b)).item() for b in problem["batches"][: command["steps"]]]}
        elif what == "train":
            steps = problem["batches"][command["first"] : command["first"] + command["steps"]]
            forget_peak()
            times = [timed(lambda: model.update(model.loss(windows)).item())[0] for windows in steps]
            answer = {"milliseconds": times, "bytes": peak_bytes()}
        elif what == "top":
            users = problem["histories"][command["first"] : command["first"] + command["users"]]
            size = 256 if layout == "packed" else problem["batch_size"]
            with torch.no_grad():
                fresh = make(layout, problem, tensors, 0.0)
                took, ids = timed(
                    lambda: [fresh.top(users[i : i + size], command["k"]) for i in range(0, len(users), size)]
                )
            answer = {"milliseconds": [took], "ids": torch.cat(ids).tolist()}
        else:
            raise ValueError(what)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
