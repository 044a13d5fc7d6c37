"""A search finds descriptors: the next program has them, and runs. All is real but the clock."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from compiler import tilings
from compiler.backends import get_backend
from compiler.tilings import Tilings
from compiler.triton_source import contract
from netdef.engine import Engine, open_engine
from netdef.formats import read_net
from netdef.stepping import step_of
from netdef.tuning import Search, fill_inputs, merge
from runtime.cuda import CudaDevice
from runtime.executable import Executable
from tests.gpu.emulated import EmulatedDevice
from tests.gpu.fake_driver import FakeDriver

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

# Products of the middle layer alone: factors that are computed as they are read, and sums of a bias
# beside a product, go without descriptors.
NET = """
layers:
- {name: data, type: Input, top: data, shape: [72, 64]}
- {name: one, type: InnerProduct, num_output: 64, bias_term: false, weight_filler: xavier}
- {name: relu, type: ReLU, top: one}
- {name: two, type: InnerProduct, num_output: 64, bias_term: false, weight_filler: xavier}
- {name: three, type: InnerProduct, num_output: 2, weight_filler: xavier}
- {name: loss, type: Reduction, operation: SUMSQ, loss_weight: 1000}
"""


def load(engine: Engine) -> Executable:
    step, arena, *_ = step_of(read_net(text=NET, format="yaml"))
    exe = engine.load(step, arena)
    fill_inputs(exe, step.graph.first)
    return exe


def described(exe: Executable) -> dict[str, str]:
    """Returns the source of the launches of a program that read through descriptors."""
    found = {x.name: exe.program.text[x.meta["source"]] for x in exe.program.launches}
    return {name: text for name, text in found.items() if "_descriptor(" in text}


def made_up(exe: Executable) -> dict[str, float]:
    """Seconds by which descriptors are twice as fast."""
    fast = described(exe)
    return {k.name: 0.5 if x.name in fast else 1.0 for x in exe.program.launches for k in x.kernels}


def search(engine: Engine, monkeypatch, folder) -> None:
    """Tries one tile and its form with descriptors, and writes what was found."""
    monkeypatch.setattr(contract, "_TRIED", 1)
    monkeypatch.setattr(contract, "_DESCRIBED", 1)
    monkeypatch.setattr(tilings, "FOLDER", folder)
    step, arena, *_ = step_of(read_net(text=NET, format="yaml"))
    found = Search(engine, step, arena, made_up)
    list(found.run())
    assert all("descriptors" in t for t in found.found().values()) and found.found()
    device = engine.backend.tilings.device
    merge(tilings.file_of(device), device, found.contractions)


def test_machine_code_with_descriptors_is_launched(monkeypatch, tmp_path):
    def engine() -> tuple[Engine, FakeDriver]:
        api = FakeDriver()
        return Engine(get_backend("triton", "sm_90", "bf16"), CudaDevice(0, api)), api

    before, _ = engine()
    assert not described(load(before))
    search(before, monkeypatch, tmp_path)
    after, api = engine()
    exe = load(after)
    assert len(described(exe)) == 3  # the product of `two`, and both of its gradients
    for _ in range(2):
        exe.run()
    exe.synchronize()
    assert [x.meta["global_scratch"] > 0 for x in exe.program.launches].count(True) == 3
    exe.close()
    assert not api.unreleased()


@pytest.mark.parametrize("target, precision", [("interpreter", "tf32"), ("sm_90", "bf16")])
def test_a_step_by_descriptors_is_the_same_bits_as_by_pointers(target, precision):
    """Of Triton's interpreter, and of machine code on an emulated GPU."""
    engine = (
        open_engine("triton", target, precision=precision)
        if target == "interpreter"
        else Engine(get_backend("triton", target, precision), EmulatedDevice(target))
    )
    step, arena, *_ = step_of(read_net(text=NET, format="yaml"))
    tried = Search(engine, step, arena, made_up).contractions.items()
    found = [(key, t) for key, c in tried for t in c.tunable.tilings[1:2] if "descriptors" in t]
    assert len(found) >= 3
    results = []
    for which in ({"descriptors"}, set()):
        table = {key: {n: v for n, v in t.items() if n not in which} for key, t in found}
        backend = engine.backend.tuned(Tilings(engine.backend.tilings.device, table))
        exe = load(Engine(backend, engine.device))
        assert bool(described(exe)) == (not which)
        exe.run()
        results.append([exe.read(name) for name in ("loss", "one/weight", "two/weight")])
        exe.close()
    engine.close()
    for by_pointers, by_descriptors in zip(*results, strict=True):
        np.testing.assert_array_equal(by_descriptors, by_pointers)
