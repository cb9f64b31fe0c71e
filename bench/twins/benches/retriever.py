"""LRURec: the recurrence alone, training steps, the best items."""

import json
import math
import os

import torch

from .device import DEVICE, Absent, normals, places, relative

# Scores that are held at a time.
SCORES_BYTES = 4 << 30


def twin_of_lrurec():
    try:
        import lrurec
    except ImportError as e:
        raise Absent(str(e)) from e
    return lrurec


def scan(case, peer):
    """The doubling form of the public implementation; what it adds is multiplied by gamma already."""
    scan_padded = twin_of_lrurec().scan_padded
    sequences, length, state = case["sequences"], case["length"], case["state"]
    u = torch.view_as_complex(normals(sequences, length, state, 2))
    lam = torch.polar(torch.linspace(0.8, 0.99, state, device=DEVICE), torch.rand(state, device=DEVICE) * 2 * math.pi)
    mask = torch.ones(sequences, length, dtype=torch.bool, device=DEVICE)
    run = lambda turn: scan_padded(u, lam, mask)
    h, wanted = run(0)[0], torch.zeros(state, dtype=torch.complex128, device=DEVICE)
    rows = []
    for step in u[0].to(torch.complex128)[:200]:
        wanted = wanted * lam + step
        rows.append(wanted)
    return run, relative(torch.view_as_real(h[: len(rows)]), torch.view_as_real(torch.stack(rows)))


def retriever_step(case, peer):
    """The forms of lrurec.py, with batches that are on the device beforehand."""
    lrurec = twin_of_lrurec()
    with open(os.path.join(case["folder"], "problem.json")) as file:
        problem = json.load(file)
    tensors = lrurec.load_file(os.path.join(case["folder"], "weights.safetensors"))
    on_device = lambda x: x.to(DEVICE) if isinstance(x, torch.Tensor) else x
    tensors = {name: on_device(x) for name, x in tensors.items()}
    layout = "all" if peer == "all_positions" else "packed"
    model = lrurec.make(layout, problem, tensors, problem["dropout"])
    batches = [tuple(map(on_device, model.batch(windows))) for windows in problem["batches"]]

    def run(turn):
        with torch.enable_grad():
            return model.update(model.loss_of(*batches[turn % len(batches)]))

    return run, None


def top(case, peer):
    users, width, k = case["users"], case["width"], case["k"]
    x, weight, bias = normals(users, width), normals(case["items"] + 1, width, size=0.1), normals(case["items"] + 1)
    seen = torch.randint(1, case["items"] + 1, (users, 5), device=DEVICE)
    at_once = max(1, min(users, SCORES_BYTES // (4 * len(bias))))

    def best(x, seen):
        scores = torch.addmm(bias, x, weight.T)
        scores[:, 0] = -math.inf
        scores.scatter_(1, seen, -math.inf)
        return scores.topk(k).indices

    def run(turn):
        torch.backends.cuda.matmul.allow_tf32 = peer == "torch_tf32"
        found = torch.cat([best(*part) for part in zip(x.split(at_once), seen.split(at_once))]).cpu()
        torch.backends.cuda.matmul.allow_tf32 = False
        return found

    return run, top_error(run(0), x, weight, bias, seen, k)


def top_error(found, x, weight, bias, seen, k):
    """The share of the places at which another item stands than float64 would put there."""
    some = places(len(x), 2)
    rows = [part.double() @ x[some].double().T for part in weight.split(1 << 20)]
    scores = torch.cat(rows).T + bias.double()
    scores[:, 0] = -math.inf
    scores.scatter_(1, seen[some], -math.inf)
    return (scores.topk(k).indices.cpu() != found[some.cpu()]).double().mean().item()
