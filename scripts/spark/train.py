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
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Ids (B, T), positions that count, their targets."""


def bucket(length: int) -> int:
    return next(limit for limit in LENGTHS if length <= limit)


def batches(seed: int, stage: str) -> Iterator[Batch]:
    """Yield batches, one length bucket each."""
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


def collate(items: list[Example], length: int) -> Batch:
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


class Training:
    """The model, what its optimisers know, and how far it is; kept in ``out/last.pt``.

    The weights that are trained are kept in float32 (``masters``); the model computes with copies
    of them in bfloat16.
    """

    def __init__(self, out: Path) -> None:
        self.file = out / "last.pt"
        self.model = Spark()
        self.masters = {n: weight.detach().clone() for n, weight in self.model.named_parameters()}
        hidden = [n for n, w in self.masters.items() if w.dim() == 2 and "embed" not in n]
        self.muon = Muon({n: self.masters[n] for n in hidden})
        self.adam = Adam({n: weight for n, weight in self.masters.items() if n not in hidden})
        self.step = self.tokens = 0
        if self.file.exists():
            self._resume()
        self.model.to(torch.bfloat16)
        self.weights = dict(self.model.named_parameters())
        self._spread()

    def _resume(self) -> None:
        state = torch.load(self.file)
        for name, weight in state["model"].items():
            self.masters[name].copy_(weight)
        self.muon.load(state["muon"])
        self.adam.load(state["adam"])
        self.step, self.tokens = state["step"], state["tokens"]

    def save(self) -> None:
        """Keep it, in place of what was kept before."""
        state = {"model": self.masters, "muon": self.muon.state, "adam": self.adam.state}
        made = self.file.with_suffix(".tmp")
        torch.save(state | {"step": self.step, "tokens": self.tokens}, made)
        made.rename(self.file)

    def _spread(self) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.masters[name])

    def learn(self, batch: Batch, scale: float) -> tuple[float, float]:
        """One step on a batch; its loss, and the share of tokens that were right."""
        ids, positions, targets = batch
        logits = self.model.logits(self.model(ids).flatten(0, 1)[positions]).float()
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        grads = {n: w.grad.float() for n, w in self.weights.items() if w.grad is not None}
        self.muon.step(grads, 0.02 * scale)
        self.adam.step(grads, 0.003 * scale)
        self.model.zero_grad(set_to_none=True)
        self._spread()
        self.step += 1
        self.tokens += ids.numel()
        if self.step % 20 == 0:
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # batches of many sizes fragment the heap
        return float(loss.detach()), float((logits.argmax(-1) == targets).float().mean())


class Told:
    """What is printed every fifty steps."""

    def __init__(self) -> None:
        self.loss = self.right = 0.0
        self.pause()

    def pause(self) -> None:
        """The speed is measured anew: something else than training has taken time."""
        self.seen, self.mark = 0, time.monotonic()

    def step(self, training: Training, loss: float, right: float, size: int, scale: float) -> None:
        """One more step has been made."""
        self.loss, self.right, self.seen = self.loss + loss, self.right + right, self.seen + size
        if training.step % 50 == 0:
            speed = self.seen / (time.monotonic() - self.mark)
            print(f"{time.strftime('%H:%M:%S')} step {training.step} "
                  f"tokens {training.tokens / 1e6:.2f}M loss {self.loss / 50:.4f} "
                  f"right {self.right / 50:.4f} lr {scale:.2f} {speed:.0f} tok/s",
                  flush=True)  # fmt: skip
            self.loss = self.right = 0.0
            self.pause()


def examine(training: Training, out: Path, elapsed: float) -> None:
    """Keep the model, and add its scores to the curve."""
    training.save()
    scores = evaluate(training.model, seed=training.step, count=24)
    line = {"step": training.step, "tokens": training.tokens, "seconds": round(elapsed)}
    with (out / "curve.jsonl").open("a") as curve:
        curve.write(json.dumps(line | {"scores": scores}) + "\n")
    print(json.dumps(scores), flush=True)


def train(training: Training, queue: Any, options: argparse.Namespace) -> None:
    """Learn from the queue until the time is over."""
    begin = last_eval = time.monotonic()
    told = Told()
    while (elapsed := time.monotonic() - begin) < options.minutes * 60:
        ids, positions, targets = (torch.from_numpy(part) for part in queue.get())
        scale = rate(elapsed, training.step, options.minutes * 60, options.decay_minutes * 60)
        scale *= options.peak
        loss, right = training.learn((ids, positions, targets), scale)
        told.step(training, loss, right, ids.numel(), scale)
        if time.monotonic() - last_eval > options.eval_minutes * 60:
            examine(training, options.out, elapsed)
            last_eval = time.monotonic()
            told.pause()


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    Layer.forward = torch.compile(Layer.forward, dynamic=False)  # type: ignore[method-assign]
    torch._dynamo.config.cache_size_limit = 64
    training = Training(options.out)
    queue: Any = mp.Queue(maxsize=12)
    seed = options.seed + training.step
    feeder = mp.Process(target=feed, args=(queue, seed, options.stage), daemon=True)
    feeder.start()
    train(training, queue, options)
    training.save()
    print(json.dumps(evaluate(training.model, seed=0, count=50)), flush=True)
    feeder.terminate()


if __name__ == "__main__":
    main()
