"""The memory that PyTorch's training step takes at most, without a GPU: tensors without numbers."""

# PyTorch is typed in part, and may be absent where mypy runs:
# mypy: disallow-subclassing-any=False, warn-return-any=False
# mypy: disallow-untyped-calls=False, warn-unused-ignores=False

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from bench import peers
from bench.cases import Case, rates
from bench.peer import Job
from bench.plain_net import plain_net
from bench.torch_side import sgd


class Living(TorchDispatchMode):
    """Adds up the storages of all tensors that operators make, each from its birth to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known = weakref.WeakSet[Any]()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_iter(made):
            if isinstance(one, Tensor) and (storage := one.untyped_storage()) not in self._known:
                self._known.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return made

    def _add(self, size: int) -> None:
        self._now += size
        self.peak = max(self.peak, self._now)


def peak_bytes(case: Case, narrow: bool) -> int:
    """Returns the most bytes that are alive at once in a net's second training step.

    The first step makes the momentum, so that later ones are all like the second. If `narrow`, the
    net runs under autocast to bf16. The tensors are said to be on a CPU: PyTorch's build need not
    know of GPUs.
    """
    if case.steps:
        raise ValueError("what nn.LSTM keeps for its gradient is cuDNN's own")
    with torch.device("meta"):  # a filler has nothing to draw
        module = peers.module_of(Job("eager", case, "train", 1, layers=plain_net(case, "train")))
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=narrow, cache_enabled=False)
    with FakeTensorMode(allow_non_fake_inputs=True), Living() as living:
        module = module.to_empty(device="cpu")
        optimizer = sgd(module, rates(case), fused=True)
        data = torch.empty(case.shape)
        label = torch.zeros(case.label_shape, dtype=torch.int64)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            with mixed:
                loss = module(data, label)
            loss.backward()
            optimizer.step()
    return living.peak
