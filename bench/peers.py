"""The nets of nets/ as plain PyTorch modules, equal to Caffe's."""

# PyTorch is typed in part, and may be absent where mypy runs:
# mypy: disallow-subclassing-any=False, warn-return-any=False
# mypy: disallow-untyped-calls=False, warn-unused-ignores=False

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.cases import Case


class LeNet(nn.Module):
    """nets/lenet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(800, 500)
        self.ip2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x), 2, 2)
        x = functional.max_pool2d(self.conv2(x), 2, 2)
        x = functional.relu(self.ip1(x.flatten(1)))
        return self.ip2(x)


class MLP(nn.Module):
    """nets/mlp."""

    def __init__(self) -> None:
        super().__init__()
        self.ip1 = nn.Linear(784, 500)
        self.ip2 = nn.Linear(500, 250)
        self.ip3 = nn.Linear(250, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.ip1(x.flatten(1)))
        return self.ip3(functional.relu(self.ip2(x)))


class CifarQuick(nn.Module):
    """nets/cifar10_quick.

    Caffe rounds pooling up and divides the average by the part of the window that is inside;
    with no padding, that is what ceil_mode does here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.ip1 = nn.Linear(1024, 64)
        self.ip2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))
        x = functional.avg_pool2d(functional.relu(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.avg_pool2d(functional.relu(self.conv3(x)), 3, 2, ceil_mode=True)
        return self.ip2(self.ip1(x.flatten(1)))


def lrn_within(x: Tensor, size: int, alpha: float, beta: float) -> Tensor:
    """Caffe's LRN WITHIN_CHANNEL: alpha over size^2, zeros around, k fixed to 1."""
    # avg_pool2d counts the padding, so that its divisor is size^2 everywhere, as Caffe's.
    mean = functional.avg_pool2d(x * x, size, stride=1, padding=(size - 1) // 2)
    return x * (1 + alpha * mean).pow(-beta)


class CifarFull(nn.Module):
    """nets/cifar10_full."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.ip1 = nn.Linear(1024, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))
        x = lrn_within(x, 3, 5e-5, 0.75)
        x = functional.avg_pool2d(functional.relu(self.conv2(x)), 3, 2, ceil_mode=True)
        x = lrn_within(x, 3, 5e-5, 0.75)
        x = functional.avg_pool2d(functional.relu(self.conv3(x)), 3, 2, ceil_mode=True)
        return self.ip1(x.flatten(1))


class CharRNN(nn.Module):
    """nets/char_rnn. The hidden states go on from batch to batch, as netdef's do."""

    h: Tensor
    c: Tensor

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.embed = nn.Embedding(case.classes, case.embed)
        self.lstm = nn.LSTM(case.embed, case.hidden, case.depth)
        self.scores = nn.Linear(case.hidden, case.classes)
        for name in ("h", "c"):  # buffers, as they are kept and restored with the weights
            self.register_buffer(name, torch.zeros(case.depth, case.batch, case.hidden))
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_hh"):  # netdef has one bias
                nn.init.zeros_(parameter.requires_grad_(False))

    def forward(self, x: Tensor) -> Tensor:
        # The gradient needs the states as they were: it gets copies.
        y, (h, c) = self.lstm(self.embed(x), (self.h.clone(), self.c.clone()))
        self.h.copy_(h.detach())
        self.c.copy_(c.detach())
        return self.scores(y.flatten(0, 1))

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns netdef's blobs under PyTorch's names, the rest of the state as it is."""
        made = self.state_dict()
        for key, blob in state.items():
            layer, name = key.split(".")
            if layer.startswith("lstm"):
                new = {"weight_x": "weight_ih", "weight_h": "weight_hh", "bias": "bias_ih"}[name]
                i, f, o, g = blob.chunk(4)  # PyTorch's gates are i, f, g, o
                key, blob = f"lstm.{new}_l{int(layer[4:]) - 1}", torch.cat([i, f, g, o])
            made[key] = blob
        return made


MODULES: dict[str, type[nn.Module]] = {
    "lenet": LeNet,
    "mlp": MLP,
    "cifar10_quick": CifarQuick,
    "cifar10_full": CifarFull,
}


def module_of(case: Case) -> nn.Module:
    """Returns the net of a case."""
    return CharRNN(case) if case.steps else MODULES[case.net]()


def load(module: nn.Module, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Copies netdef's blobs (`conv1/weight`) to the module's parameters; all have to fit."""
    state = {key.replace("/", "."): torch.from_numpy(w) for key, w in weights.items()}
    if isinstance(module, CharRNN):
        state = module.named(state)
    with torch.no_grad():
        module.load_state_dict(state, strict=True)
