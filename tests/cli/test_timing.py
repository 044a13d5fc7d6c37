"""`netdef time`: tables, JSON and trace; never how long anything takes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from netdef.engine import open_engine
from netdef.formats import read_net
from netdef.measuring import Measured, by_layer
from netdef.stepping import step_of
from runtime.cuda import CudaDevice
from schemas.params import LayerBlobs
from schemas.program import KernelInfo, Launch, Program, Repeat, Way
from tests.gpu.fake_driver import FakeDriver


def kernel(name: str, way: Way, *layers: str) -> KernelInfo:
    return KernelInfo(name, "map", layers, (), 2_000_000, 1_000_000, way=way)


def program() -> Program:
    launches = (
        Launch("conv", (kernel("conv", "forward", "conv", "relu"),)),
        Launch("d", (kernel("d(ip)", "backward", "ip"), kernel("d(conv)", "backward", "conv"))),
        Launch("loop", (kernel("update", "update"),), repeat=Repeat("loop", 50, False)),
    )
    layers = tuple(LayerBlobs(name, "x", ()) for name in ("ip", "conv", "relu"))
    return Program("net", "cpu", launches, (), {}, layers=layers)


# Late, conv, wait, d(ip), d(conv), wait, update, wait; two threads, two steps.
PARTS = np.array([[[0, 3, 0, 1, 1, 0, 2, 0], [1, 1, 1, 1, 1, 0, 1, 1]]] * 2, np.float64)


def test_kernels_have_the_mean_of_the_threads() -> None:
    measured = Measured(program(), [8.0, 7.0], PARTS)
    assert measured.kernels() == [2.0, 1.0, 1.0, 1.5]
    assert measured.waiting() == 1.5
    assert Measured(program(), [8.0], None).kernels() == [None] * 4


def test_layers_are_in_order_and_ways_apart() -> None:
    layers = by_layer(program(), [2.0, 1.0, 1.0, 1.5])
    assert [one.name for one in layers] == ["ip", "conv"]
    assert layers[1].seconds == {"forward": 2.0, "backward": 1.0}
    assert layers[1].flops == {"forward": 2_000_000, "backward": 2_000_000}
    assert list(layers[1].others) == ["relu"]


def test_a_trace_has_a_row_for_each_thread() -> None:
    trace = Measured(program(), [8.0, 7.0], PARTS).trace()
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    first = [(e["name"], e["ts"], e["dur"]) for e in events if e["tid"] == 0]
    assert first == [
        ("conv", 0.0, 3e6), ("d(ip)", 3e6, 1e6), ("d(conv)", 4e6, 1e6), ("update", 5e6, 2e6),
    ]  # fmt: skip
    assert [e["ts"] for e in events if e["tid"] == 1] == [1e6, 3e6, 4e6, 5e6]
    assert events[0]["cat"] == "forward" and events[0]["args"]["layers"] == "conv+relu"
    names = [e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"]
    assert names == ["thread 0", "thread 1"]
    assert trace["otherData"]["kernels"] == "measured"


def test_a_trace_of_what_is_not_timed_is_split_by_work() -> None:
    trace = Measured(program(), [8.0], None).trace()
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert [e["dur"] for e in events] == [2e6] * 4
    assert trace["otherData"]["kernels"] == "split by counted flops and bytes"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_time_on_the_cpu(threads: str, tiny, netdef) -> None:
    words = ["time", "net.yaml", "--backend", "cpu", "--threads", threads, "--iterations", "2"]
    result = netdef(*words, "--trace", "trace.json")
    assert result.exit_code == 0, result.stderr
    heads = [line.split() for line in result.stdout.splitlines() if "GFLOP/s" in line]
    assert heads[0][0] == "here" and heads[1][0] == "layer" and heads[2][0] == "kernel"
    assert "of peak" in result.stdout and "\nwaiting " in result.stdout
    trace = json.loads((tiny / "trace.json").read_text())
    assert {e["tid"] for e in trace["traceEvents"]} == set(range(int(threads)))
    document = json.loads(netdef(*words, "--json").stdout)
    ways = {k["kernel"]: k["way"] for k in document["kernels"]}
    assert ways["ip1"] == "forward" and ways["d(ip1/weight)"] == "backward"
    assert ways["update"] == "update"
    assert all(k["seconds"] >= 0 for k in document["kernels"])
    assert document["peak_gflops"] > 0 and document["copy_gbytes"] > 0
    assert {one["layer"] for one in document["layers"]} >= {"ip1", "loss"}


def test_time_on_a_gpu_that_is_made_of_python(tiny, netdef, monkeypatch) -> None:
    """Real machine code, whose launches take 1 ms each and do nothing."""
    pytest.importorskip("triton")
    device = CudaDevice(0, FakeDriver())
    monkeypatch.setattr("netdef.engine._gpu", lambda: "sm_90")
    monkeypatch.setattr("netdef.engine._cuda", lambda: device)
    monkeypatch.setattr("netdef.device_ceilings.SIZE", 64)
    monkeypatch.setattr("netdef.device_ceilings.COPIED", 4096)
    words = ["time", "net.yaml", "--backend", "triton", "--iterations", "2"]
    result = netdef(*words, "--precision", "bf16", "--trace", "trace.json")
    assert result.exit_code == 0, result.stderr
    # 64 x 64 x 64 products and 4096 numbers read and written, in 1 ms.
    assert "here now: product 1 GFLOP/s, copy 0.0 GB/s" in result.stdout
    assert "of peak" in result.stdout and "\nwaiting " not in result.stdout
    document = json.loads(netdef(*words, "--json").stdout)
    assert document["median_seconds"] == pytest.approx(1e-3 * document["launches"])
    assert sum(k["seconds"] for k in document["kernels"]) == pytest.approx(
        document["median_seconds"]
    )
    assert document["peak_gflops"] == pytest.approx(2 * 64**3 / 1e6)
    assert document["copy_gbytes"] == pytest.approx(8 * 4096 / 1e6)
    trace = json.loads((tiny / "trace.json").read_text())
    assert {e["tid"] for e in trace["traceEvents"]} == {0}
    assert not device.driver.api.unreleased()


def test_every_part_of_a_step_is_timed_in_each_thread(tmp_path) -> None:
    """Kernels of a loop over time count all its steps."""
    (tmp_path / "net.yaml").write_text(
        "layers:\n"
        "- {name: x, type: DummyData, shape: [50, 2, 4]}\n"
        "- {name: h, type: LSTM, bottom: x, num_output: 8}\n"
    )
    spec = read_net(tmp_path / "net.yaml")
    engine = open_engine("cpu", threads=2)
    step, arena, *_ = step_of(spec, "TEST")
    exe = engine.load(step, arena)
    exe.run()  # whose time does not count
    seconds, spent = exe.time()
    assert spent is not None and spent.sum(axis=1).max() == pytest.approx(seconds)
    assert any(launch.repeat for launch in exe.program.launches)
    assert spent.shape == (2, 1 + sum(len(x.kernels) + 1 for x in exe.program.launches))
    assert (spent >= 0).all() and (spent.sum(axis=0)[1:] > 0).all()
    engine.close()


def test_time_of_a_net_whose_data_is_not_here(tmp_path, monkeypatch, netdef) -> None:
    """It has an assumed shape, and a batch that can be set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(
        "layers:\n"
        "- {name: data, type: Data, source: none_lmdb, backend: LMDB, top: [data, label],\n"
        "   batch_size: 64, crop_size: 8}\n"
        "- {name: ip, type: InnerProduct, num_output: 3}\n"
        "- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}\n"
    )
    words = ["time", "net.yaml", "--backend", "reference", "--iterations", "1", "--json"]
    small, large = (
        json.loads(netdef(*words, "--set", f"data.batch_size={n}").stdout) for n in (2, 4)
    )
    assert 2 * small["kernels"][0]["bytes"] > large["kernels"][0]["bytes"]
    assert 0 < small["kernels"][0]["flops"] < large["kernels"][0]["flops"]
