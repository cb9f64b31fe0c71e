"""PyTorch, bitsandbytes and transformers on a card, as peers for the kernels.

    gpu.py {cuda,cpu}

Reads one JSON command a line from standard input, answers with one JSON object a line (see bench/src/gpu/side.rs). A case
names its `bench` (see benches) and its sizes, a command the `peer` that is asked for. On the CPU it shows that all of this
runs.

about    versions
prepare  makes inputs, warms up, and compares with float64 where that is cheap
time     so many repetitions with one wait for the device at their end: milliseconds of one
release  gives everything back

What is not installed, or not made for the device, is `absent`; whatever else goes wrong has `failed`.
"""

import gc
import json
import os
import platform
import sys
import time
from importlib import metadata

import torch

from benches import BENCHES
from benches.device import DEVICE, Absent, wait

WARM_UP = 3


def about():
    found = {"Python": platform.python_version(), "device": DEVICE}
    if DEVICE == "cuda" and torch.cuda.is_available():
        found["card"] = torch.cuda.get_device_name()
    for package in ("torch", "triton", "bitsandbytes", "transformers", "peft"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {"about": {**found, "CUDA of torch": str(torch.version.cuda)}}


def answer(entries, command):
    what, peer = command["do"], command.get("peer")
    if what == "about":
        return about()
    if what == "prepare":
        torch.manual_seed(1)
        run, error, *outcome = BENCHES[command["case"]["bench"]](command["case"], peer)
        for turn in range(WARM_UP if DEVICE == "cuda" else 1):
            run(turn)
        wait()
        entries[peer] = run
        return {"error": error, "outcome": outcome[0] if outcome else None}
    if what == "time":
        run, repeats = entries[peer], command["repeats"]
        run(0)
        wait()
        start = time.perf_counter()
        for turn in range(1, repeats + 1):
            run(turn)
        wait()
        return {"milliseconds": (time.perf_counter() - start) * 1e3 / repeats}
    entries.clear()
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    return {}


def failed(error):
    """What went wrong, and whether the device is lost to this process."""
    try:
        wait()
        lost = False
    except Exception:
        lost = True
    return {"failed": f"{type(error).__name__}: {error}", "lost": lost}


def main():
    # Libraries print what they like: answers have a way of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    entries = {}
    for line in sys.stdin:
        try:
            with torch.no_grad():
                said = answer(entries, json.loads(line))
        except Absent as e:
            said = {"absent": str(e)}
        except Exception as e:
            said = failed(e)
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
