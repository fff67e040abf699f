"""Train the model: copying first, then conversations, and a linear decay at the end.

    python scripts/spark/train.py --minutes 100 --decay-minutes 25

The learning rate warms up, stays constant and decays (WSD), so a run can be resumed with better
data and annealed whenever it is good enough. Hidden matrices are trained with Muon, embeddings and
norms with AdamW. State is kept in OUT/last.pt; the curve goes to OUT/curve.jsonl.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing as mp
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import torch
import torch.nn.functional as F
from conversation import TASKS
from data import Example, example
from model import Layer, Spark
from optim import Adam, Muon

LENGTHS = (64, 128, 192, 256, 384, 512, 768, 1024)
TOKENS_PER_BATCH = 8192


def bucket(length: int) -> int:
    return next(limit for limit in LENGTHS if length <= limit)


def batches(seed: int, stage: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield (ids (B, T), positions that count, their targets), one length bucket a batch."""
    rng = random.Random(seed)
    waiting: dict[int, list[Example]] = {length: [] for length in LENGTHS}
    while True:
        item = example(rng, stage=stage)
        if len(item.ids) > LENGTHS[-1]:
            continue
        length = bucket(len(item.ids))
        waiting[length].append(item)
        if len(waiting[length]) * length >= TOKENS_PER_BATCH:
            yield collate(waiting[length], length)
            waiting[length] = []


def collate(items: list[Example], length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.zeros(len(items), length, dtype=torch.long)
    wanted = torch.zeros(len(items), length, dtype=torch.bool)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        wanted[row, : len(item.ids)] = torch.tensor(item.mask, dtype=torch.bool)
    where = wanted[:, 1:].nonzero()
    positions = where[:, 0] * length + where[:, 1]
    return ids, positions, ids[:, 1:][wanted[:, 1:]]


def feed(queue: Any, seed: int, stage: str) -> None:
    torch.set_num_threads(1)
    for ids, positions, targets in batches(seed, stage):
        queue.put((ids.numpy(), positions.numpy(), targets.numpy()))


def evaluate(model: Spark, seed: int, count: int) -> dict[str, float]:
    """Share of held-out answers that greedy decoding would give exactly, by task."""
    rng = random.Random(seed)
    waiting: dict[int, list[tuple[str, Example]]] = {}
    for task in TASKS:
        for _ in range(count):
            item = example(rng, task=task, held_out=True)
            if len(item.ids) <= LENGTHS[-1]:
                waiting.setdefault(bucket(len(item.ids)), []).append((task, item))
    right: dict[str, list[bool]] = {task: [] for task in TASKS}
    for length, pairs in waiting.items():
        rows = TOKENS_PER_BATCH // length
        for start in range(0, len(pairs), rows):
            score(model, pairs[start : start + rows], length, rows, right)
    return {task: round(sum(marks) / max(1, len(marks)), 3) for task, marks in right.items()}


def score(
    model: Spark, pairs: list[tuple[str, Example]], length: int, rows: int,
    right: dict[str, list[bool]],
) -> None:  # fmt: skip
    """Add to `right` whether each answer is exact; the batch is filled up to its usual shape."""
    blank = Example([0], [False])
    items = [item for _, item in pairs] + [blank] * (rows - len(pairs))
    ids, positions, targets = collate(items, length)
    with torch.no_grad():
        found = model.logits(model(ids).flatten(0, 1)[positions]).argmax(-1)
    wrong = set((positions[found != targets] // length).tolist())
    for row, (task, _) in enumerate(pairs):
        right[task].append(row not in wrong)


def rate(elapsed: float, step: int, total: float, decay: float) -> float:
    warm = min(1.0, (step + 1) / 100)
    return warm * max(0.0, min(1.0, (total - elapsed) / decay))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("spark-run"))
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--decay-minutes", type=float, default=25)
    parser.add_argument("--stage", default="all", help="`copy` for the warm-up, else `all`")
    parser.add_argument("--peak", type=float, default=1.0, help="scale of the learning rates")
    parser.add_argument("--eval-minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    Layer.forward = torch.compile(Layer.forward, dynamic=False)  # type: ignore[method-assign]
    torch._dynamo.config.cache_size_limit = 64
    model = Spark()
    masters = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    hidden = [n for n, w in masters.items() if w.dim() == 2 and "embed" not in n]
    muon = Muon({name: masters[name] for name in hidden})
    adam = Adam({name: weight for name, weight in masters.items() if name not in hidden})
    state_file, step, tokens = options.out / "last.pt", 0, 0
    if state_file.exists():
        state = torch.load(state_file)
        for name, weight in state["model"].items():
            masters[name].copy_(weight)
        muon.load(state["muon"])
        adam.load(state["adam"])
        step, tokens = state["step"], state["tokens"]
    model.to(torch.bfloat16)
    weights = dict(model.named_parameters())
    queue: Any = mp.Queue(maxsize=12)
    feeder = mp.Process(target=feed, args=(queue, options.seed + step, options.stage), daemon=True)
    feeder.start()

    def spread() -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(masters[name])

    def save() -> None:
        state = {"model": masters, "muon": muon.state, "adam": adam.state}
        torch.save(state | {"step": step, "tokens": tokens}, state_file.with_suffix(".tmp"))
        state_file.with_suffix(".tmp").rename(state_file)

    spread()
    begin = last_eval = time.monotonic()
    loss_sum, right_sum, seen, mark = 0.0, 0.0, 0, time.monotonic()
    while (elapsed := time.monotonic() - begin) < options.minutes * 60:
        ids, positions, targets = (torch.from_numpy(part) for part in queue.get())
        logits = model.logits(model(ids).flatten(0, 1)[positions]).float()
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        scale = rate(elapsed, step, options.minutes * 60, options.decay_minutes * 60)
        grads = {n: w.grad.float() for n, w in weights.items() if w.grad is not None}
        scale *= options.peak
        muon.step(grads, 0.02 * scale)
        adam.step(grads, 0.003 * scale)
        model.zero_grad(set_to_none=True)
        spread()
        step, tokens, seen = step + 1, tokens + ids.numel(), seen + ids.numel()
        loss_sum += float(loss.detach())
        right_sum += float((logits.argmax(-1) == targets).float().mean())
        if step % 20 == 0:
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # batches of many sizes fragment the heap
        if step % 50 == 0:
            speed = seen / (time.monotonic() - mark)
            print(f"{time.strftime('%H:%M:%S')} step {step} tokens {tokens / 1e6:.2f}M "
                  f"loss {loss_sum / 50:.4f} right {right_sum / 50:.4f} lr {scale:.2f} "
                  f"{speed:.0f} tok/s", flush=True)  # fmt: skip
            loss_sum, right_sum, seen, mark = 0.0, 0.0, 0, time.monotonic()
        if time.monotonic() - last_eval > options.eval_minutes * 60:
            save()
            scores = evaluate(model, seed=step, count=24)
            line = {"step": step, "tokens": tokens, "seconds": round(elapsed), "scores": scores}
            with (options.out / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(line) + "\n")
            print(json.dumps(scores), flush=True)
            last_eval = mark = time.monotonic()
            seen = 0
    save()
    print(json.dumps(evaluate(model, seed=0, count=50)), flush=True)
    feeder.terminate()


if __name__ == "__main__":
    main()
