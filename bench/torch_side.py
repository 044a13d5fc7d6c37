"""PyTorch in the bench: eager, channels last, torch.compile, CUDA graph; its ceilings."""

# PyTorch is typed in part, and may be absent where mypy runs:
# mypy: disallow-subclassing-any=False, warn-return-any=False
# mypy: disallow-untyped-calls=False, warn-unused-ignores=False

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import peers
from bench.cases import Rates
from bench.peer import Array, Job

NARROW = {"bf16": torch.bfloat16}  # what products are made of, by precision
WARM_UP = 3  # runs that PyTorch asks for before a capture


class TorchPeer:
    """A net of bench/peers.py.

    `flavour`: eager, channels_last, compile, max_autotune or cuda_graph.
    channels_last also has the fused optimiser; cuda_graph has both. In bf16, the net runs under
    autocast, with weights and losses in float32, as netdef's are. On a GPU the batch is copied
    from pinned memory in each step, because netdef's step holds such a copy.
    """

    def __init__(self, job: Job, data: Mapping[str, Array], flavour: str) -> None:
        torch.set_num_threads(job.threads)
        torch.manual_seed(1)
        set_precision(job.precision)
        self._gpu = job.device == "cuda"
        self._training = job.mode == "train"
        self._losses: list[Tensor] = []
        self._output: Tensor | None = None
        images = len(job.case.item) == 3
        self._last_format = images and flavour in ("channels_last", "cuda_graph")
        # Each weight is read once in a forward pass: to keep its copy would only take memory.
        self._mixed = torch.autocast(
            job.device, torch.bfloat16, enabled=job.precision in NARROW, cache_enabled=False
        )
        self._place(data, job)
        self._module = self._build(job)
        fused = flavour in ("channels_last", "cuda_graph")
        self._optimizer: torch.optim.Optimizer | None = None
        if self._training:
            assert job.rates is not None
            self._clip = job.rates.clip
            self._optimizer = sgd(self._module, job.rates, fused)
        self._net: Callable[..., Tensor] = self._module
        if flavour in ("compile", "max_autotune"):
            mode = "max-autotune" if flavour == "max_autotune" else None
            self._net = torch.compile(self._module, mode=mode)
        self._step = self._train if self._training else self._infer
        if flavour == "cuda_graph":
            self._step = self._captured()

    def _place(self, data: Mapping[str, Array], job: Job) -> None:
        """Puts the batch into memory, and on a GPU a pinned copy of it."""
        host = torch.from_numpy(data["data"])
        if job.case.steps:
            host = host.long()  # characters
        if self._last_format:
            host = host.contiguous(memory_format=torch.channels_last)
        self._host = host.pin_memory() if self._gpu else host
        self._data = self._host.to(job.device)
        label = torch.from_numpy(data["label"]).long().flatten()
        self._host_label = label.pin_memory() if self._gpu else label
        self._label = self._host_label.to(job.device)

    def _build(self, job: Job) -> nn.Module:
        module = peers.module_of(job)
        if job.weights:
            from safetensors.numpy import load_file

            peers.load(module, load_file(Path(job.weights)))
        module.train(self._training)
        if self._last_format:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module.to(job.device)

    def _train(self) -> Tensor:
        assert self._optimizer is not None
        self._copy_in()
        self._optimizer.zero_grad(set_to_none=True)
        with self._mixed:
            loss = self._net(self._data, self._label)
        loss.backward()
        if self._clip >= 0:
            nn.utils.clip_grad_norm_(self._module.parameters(), self._clip)
        self._optimizer.step()
        return loss.detach()

    def _infer(self) -> Tensor:
        self._copy_in()
        with torch.inference_mode(), self._mixed:
            return self._net(self._data)

    def _copy_in(self) -> None:
        if self._gpu:
            self._data.copy_(self._host, non_blocking=True)
            self._label.copy_(self._host_label, non_blocking=True)

    def _captured(self) -> Callable[[], Tensor]:
        """Returns a replay of the whole step as one CUDA graph, from the weights as they were."""
        step = self._train if self._training else self._infer
        before = {k: v.clone() for k, v in self._module.state_dict().items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = step()
        self._module.load_state_dict(before)  # the warm-up was training
        for state in self._optimizer.state.values() if self._optimizer else ():
            state["momentum_buffer"].zero_()

        def replay() -> Tensor:
            graph.replay()
            return made

        return replay

    def run(self, count: int) -> None:
        """Runs `count` steps and waits for the last."""
        losses = []
        for done in range(count):
            made = self._step()
            if self._training and count - done <= 3:
                losses.append(made.clone())  # a graph writes to the same place each time
        self._losses = (self._losses + losses)[-3:]
        self._output = None if self._training else made
        if self._gpu:
            torch.cuda.synchronize()

    def result(self) -> list[float]:
        """Returns the losses of the last three steps, or the outputs of the last."""
        if self._training:
            return [float(x) for x in self._losses]
        assert self._output is not None
        return [float(x) for x in self._output.float().cpu().flatten()]

    def facts(self) -> dict[str, Any]:
        """Returns the version, and on a GPU the peak of its memory.

        `used_bytes` is what the device is short of, libraries and code included.
        """
        facts: dict[str, Any] = {"torch": torch.__version__}
        if self._gpu:
            facts["device_bytes"] = torch.cuda.max_memory_reserved()
            free, total = torch.cuda.mem_get_info()
            facts["used_bytes"] = total - free
        return facts

    def close(self) -> None:
        """Nothing to end."""


def sgd(module: nn.Module, rates: Rates, fused: bool) -> torch.optim.Optimizer:
    """Returns SGD with the solver's rates: Caffe's update is PyTorch's while the rate is fixed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for key, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, blob = key.rsplit(".", 1)
        pair = rates.of(layer, 1 if blob.startswith("bias") else 0)
        groups.setdefault(pair, []).append(parameter)
    return torch.optim.SGD(
        [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()],
        lr=rates.default[0],
        momentum=rates.momentum,
        fused=True if fused else None,
    )


class Matmul:
    """A ceiling on a GPU: a large square product in the job's precision."""

    SIZE = 8192

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        set_precision(job.precision)
        self._device = job.device
        size = self.SIZE if job.device == "cuda" else 512
        self._size = size
        dtype = NARROW.get(job.precision, torch.float32)
        self._a = torch.randn(size, size, device=job.device, dtype=dtype)
        self._b = torch.randn(size, size, device=job.device, dtype=dtype)

    def run(self, count: int) -> None:
        """Multiplies `count` times and waits."""
        for _ in range(count):
            torch.mm(self._a, self._b)
        if self._device == "cuda":
            torch.cuda.synchronize()

    def result(self) -> list[float]:
        """Returns nothing: there is nothing to compare."""
        return []

    def facts(self) -> dict[str, Any]:
        """Returns the work of one product."""
        return {"gflop": 2 * self._size**3 / 1e9}

    def close(self) -> None:
        """Nothing to end."""


class Copy:
    """The other ceiling: a copy of a large block of the device's memory."""

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        size = 1 << 28 if job.device == "cuda" else 1 << 20  # float32
        self._device = job.device
        self._source = torch.ones(size, device=job.device)
        self._target = torch.empty_like(self._source)

    def run(self, count: int) -> None:
        """Copies `count` times and waits."""
        for _ in range(count):
            self._target.copy_(self._source)
        if self._device == "cuda":
            torch.cuda.synchronize()

    def result(self) -> list[float]:
        """Returns nothing: there is nothing to compare."""
        return []

    def facts(self) -> dict[str, Any]:
        """Returns what one copy reads and writes."""
        return {"gbyte": 2 * self._source.nbytes / 1e9}

    def close(self) -> None:
        """Nothing to end."""


def set_precision(precision: str) -> None:
    """Sets what PyTorch's products on a GPU are made in, the same for matrices and images."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True  # its best convolutions for these shapes
