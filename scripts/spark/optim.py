"""Two optimisers over named fp32 tensors, updated in place.

Muon orthogonalises the momentum of each hidden matrix with a Newton-Schulz iteration (Jordan et
al., 2024, https://kellerjordan.github.io/posts/muon/); matrices of one shape are done as a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def orthogonalize(stack: Tensor, rounds: int = 5) -> Tensor:
    """Push the singular values of each matrix (N, rows, columns) towards one."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if tall else stack).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    whitened: Tensor = x.mT if tall else x
    return whitened.float()


class Muon:
    def __init__(self, weights: Weights, momentum: float = 0.95, decay: float = 0.01) -> None:
        self.weights, self.momentum, self.decay = weights, momentum, decay
        self.state = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.groups: dict[torch.Size, list[str]] = {}
        for name, weight in weights.items():
            self.groups.setdefault(weight.shape, []).append(name)

    def load(self, state: Weights) -> None:
        self.state.update(state)

    def step(self, grads: Weights, rate: float) -> None:
        for shape, names in self.groups.items():
            for name in names:
                self.state[name].lerp_(grads[name], 1 - self.momentum)
            stack = torch.stack(
                [grads[name].lerp(self.state[name], self.momentum) for name in names]
            )
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, orthogonalize(stack), strict=True):
                self.weights[name].mul_(1 - rate * self.decay).add_(update, alpha=-rate * scale)


class Adam:
    def __init__(self, weights: Weights, betas: tuple[float, float] = (0.9, 0.95)) -> None:
        self.weights, self.betas = weights, betas
        self.state = {name: torch.zeros(2, *weight.shape) for name, weight in weights.items()} | {
            "steps": torch.zeros(1)
        }

    def load(self, state: Weights) -> None:
        self.state.update(state)

    def step(self, grads: Weights, rate: float) -> None:
        self.state["steps"] += 1
        count = float(self.state["steps"])
        first_fix, second_fix = 1 - self.betas[0] ** count, 1 - self.betas[1] ** count
        for name, weight in self.weights.items():
            first, second = self.state[name]
            first.lerp_(grads[name], 1 - self.betas[0])
            second.lerp_(grads[name].square(), 1 - self.betas[1])
            weight.addcdiv_(
                first, (second / second_fix).sqrt_().add_(1e-8), value=-rate / first_fix
            )
