"""CudaDevice on a driver made of Python: memory, order, packing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from runtime.cuda import CudaDevice
from schemas.errors import UsageError
from schemas.program import INPUTS, KernelInfo, Launch, Repeat, Slot
from tests.gpu.fake_driver import floats
from tests.gpu.handles import Kernel
from tests.runtime.cuda_programs import META, program, step, tensor


def test_a_weight_and_its_copy_are_written_together(api):
    made = program()
    tensors = {**made.tensors, "w": replace(made.tensors["w"], copy="params:bf16")}
    slots = (*made.slots, Slot("params:bf16", 12, True))
    executable = CudaDevice(0, api).load(replace(made, tensors=tensors, slots=slots))
    executable.write("w", np.array([1, -2, 3.1, 0, 1e-3, 2**-8 + 1]))
    block = executable.blocks["params:bf16"]
    bits = floats(block.address, 3).view(np.uint16).astype(np.uint32) << 16
    np.testing.assert_allclose(bits.view(np.float32), executable.read("w"), rtol=2**-8)


def test_steps_are_a_graph_for_each_side_of_the_inlet(api):
    executable = CudaDevice(0, api).load(program())
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    executable.write("lr", 0.5)
    executable.write("x", x)
    executable.run(log=("loss",))
    executable.run()
    executable.write("lr", 0.0)
    executable.run(log=("loss",))
    assert executable.drain() == [{"loss": 13.5}, {"loss": 21.0}]
    assert executable.drain() == []
    np.testing.assert_array_equal(executable.read("x"), x)
    # The parameters lie as the device saw x: channels last.
    np.testing.assert_array_equal(executable.read("w"), 1 + x.transpose(0, 2, 1).ravel())
    assert len(api.named("cuGraphInstantiate")) == 2 and len(api.named("cuGraphLaunch")) == 3
    assert len(api.named("cuLaunchKernelEx")) == 2
    ((function, *most),) = api.named("cuFuncSetAttribute")
    assert function.name == "step" and most == ["shared", 70000]
    assert api.named("cuFuncSetCacheConfig") == [(function, "prefer shared")]
    executable.close()
    executable.close()
    assert not api.unreleased()
    assert [module.image for (module,) in api.named("cuModuleUnload")] == [b"cubin"]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_loop_is_captured_step_by_step(backwards, api):
    """h = 0.5 * h + x[t], y[t] = h: two launches, whose pointers move, in four time steps."""
    repeat, moved = Repeat("loop", 4, backwards), {"x": 4, "y": 8, "h": 0}
    at = {"x": (INPUTS, 16), "y": ("arena", 64), "h": ("params", 0)}

    def launch(name: str, *buffers: str) -> Launch:
        args, moves = tuple(at[b] for b in buffers), tuple(moved[b] for b in buffers)
        return Launch(name, (), name, args, META | {"name": name}, repeat=repeat, moves=moves)

    def blend(pointers) -> None:
        h, x = (floats(p, 1) for p in pointers)
        h[:] = 0.5 * h + x

    def keep(pointers) -> None:
        y, h = (floats(p, 1) for p in pointers)
        y[:] = h

    api.kernels.update({"blend": Kernel(blend, 2), "keep": Kernel(keep, 2)})
    launches = (launch("blend", "h", "x"), launch("keep", "y", "h"))
    tensors = [
        tensor("x", "input", (4,), INPUTS, 16),
        tensor("y", "output", (4,), "arena", 64, (2,)),
        tensor("h", "state", (), "params"),
    ]
    looped = program(
        launches=launches,
        tensors={t.name: t for t in tensors},
        code={"blend": b"1", "keep": b"2"},
        initial={},
    )
    executable = CudaDevice(0, api).load(looped)
    executable.write("x", np.array([1, 2, 3, 4]))
    executable.run()
    h, expected = 0.0, [0.0] * 4
    for t in reversed(range(4)) if backwards else range(4):
        h = expected[t] = 0.5 * h + (t + 1)
    assert executable.read("y").tolist() == expected
    assert executable.read("h") == h
    assert len(api.named("cuLaunchKernelEx")) == 8 and len(api.named("cuModuleLoadData")) == 2
    executable.run()
    assert len(api.named("cuLaunchKernelEx")) == 8  # replayed, not enqueued again


@pytest.mark.parametrize("wanted, started", [(4, 4), (132, 6)])
def test_programs_that_wait_for_each_other_all_run_at_once(wanted, started, api):
    """They share out the work by how many they are, so there are never more than processors."""
    meta = META | {"grid": [wanted, 1, 1], "cooperative": True}
    launch = replace(program().launches[0], meta=meta)
    executable = CudaDevice(0, api).load(program(launches=(launch,)))
    executable.write("lr", 0.5)
    executable.run(log=("loss",))
    assert executable.drain() == [{"loss": 6.0}]
    ((config, *_),) = api.named("cuLaunchKernelEx")
    assert config.gridDimX == started
    assert [(one.id, one.value.cooperative) for one in config.attrs] == [("cooperative", 1)]


def test_kernels_begin_early_behind_kernels_that_end(api):
    """Not the first one, not behind an event, not one that does not wait or is cooperative."""
    api.kernels["step"] = Kernel(step, 4, waits=True)
    one = program().launches[0]
    kinds = {"first": {}, "second": {}, "deaf": {"waits": False}, "all": {"cooperative": True}}
    kinds |= {"last": {}}
    launches = tuple(
        replace(one, name=name, meta=META | {"waits": True} | more) for name, more in kinds.items()
    )
    executable = CudaDevice(0, api, pdl=True).load(program(launches=launches))
    executable.write("lr", 1.0)
    executable.write("x", np.ones((1, 2, 3)))
    executable.run(log=("loss",))
    assert executable.drain() == [{"loss": 6.0 + 5 * 6.0}]
    executable.time()
    executable.close()
    CudaDevice(0, api).load(program(launches=launches)).run()
    given = [[one.id for one in config.attrs] for config, *_ in api.named("cuLaunchKernelEx")]
    assert given == [
        *([], ["early"], [], ["cooperative"], ["early"]),
        *2 * ([], [], [], ["cooperative"], []),
    ]


def test_scalars_go_over_in_one_copy(api):
    executable = CudaDevice(0, api).load(program())
    executable.run()
    before = len(api.named("cuMemcpyHtoDAsync"))
    executable.write("lr", 0.1)
    asked = len(api.calls)
    executable.write("seed_lo", 0xFFFFFFFF)
    with pytest.raises(UsageError, match=r"'lr' has shape \(\), but the value has \(2,\)"):
        executable.write("lr", np.zeros(2))
    assert len(api.calls) == asked  # nothing of the driver: there are several in each step
    executable.run()
    executable.run()
    assert len(api.named("cuMemcpyHtoDAsync")) == before + 1
    assert executable.read("seed_lo") == -1 and executable.read("lr") == np.float32(0.1)


def test_shared_memory(api):
    device = CudaDevice(0, api)
    train = device.load(program())
    test = device.load(program(initial={}), share=train)
    train.write("w", np.arange(6, dtype=np.float32))
    test.write("lr", 2.0)
    assert train.read("lr") == 2.0
    train.close()
    np.testing.assert_array_equal(test.read("w"), np.arange(6))
    test.close()
    assert not api.unreleased()


def test_input_waits_only_for_the_copy_before_last(api):
    executable = CudaDevice(0, api).load(program())
    for i in range(3):
        executable.write("x", np.full((1, 2, 3), i))
        executable.run()
    waiting = [one.name for one in api.order.waiting.values()]
    assert waiting.count("a graph") == 3 and waiting.count("a copy to the device") == 2
    assert (executable.read("x") == 2).all()


def test_input_comes_while_the_step_before_runs(api):
    """Its copy over the bus is ordered behind the step before that one, and nothing is moved."""
    executable = CudaDevice(0, api).load(program())
    for i in range(3):
        executable.write("x", np.full((1, 2, 3), i))
        executable.write("lr", 0.5)
        executable.run()
    steps, copies = (
        [one for one in api.order.waiting.values() if one.name == name]
        for name in ("a graph", "a copy to the device")
    )
    assert len(copies) >= 2  # the first may be done
    for n, copy in enumerate(copies, 3 - len(copies)):
        assert [bool(copy.before & step.bit) for step in steps] == [i < n - 1 for i in range(3)]
        assert steps[n].before & copy.bit
    assert not api.named("cuMemcpyDtoDAsync")
    executable.close()
    assert not api.unreleased()


def test_driver_calls_of_a_step(api):
    """Whatever a step reads comes in one copy over the bus, and lies where it is read."""
    made = program()
    label = tensor("label", "input", (3,), INPUTS, 128)
    same = replace(made.tensors["x"], name="same", role="output")  # as of a Split
    tensors = made.tensors | {"same": same, "label": label}
    executable = CudaDevice(0, api).load(replace(made, tensors=tensors))

    def calls() -> Counter[str]:
        first = len(api.calls)
        for _ in range(2):
            executable.write("x", np.ones((1, 2, 3)))
            executable.write("label", np.arange(3))
            executable.write("lr", 0.5)
            executable.run(log=("loss",))
        return Counter(name for name, *_ in api.calls[first:])

    calls()  # the graph is made
    assert calls() == {
        "cuCtxSetCurrent": 4,
        "cuEventSynchronize": 2,
        "cuStreamWaitEvent": 4,
        "cuMemcpyHtoDAsync": 2,
        "cuEventRecord": 4,
        "cuGraphLaunch": 2,
        "cuMemcpyDtoHAsync": 2,
    }
    assert executable.read("label").tolist() == [0, 1, 2] and executable.read("lr") == 0.5
    assert (executable.read("same") == 1).all()
    executable.close()
    assert not api.unreleased()


def test_only_what_was_written_goes_over(api):
    """An input that is not written again stays what it was, and is moved no more than once."""
    made = program()
    label = tensor("label", "input", (3,), INPUTS, 0)
    executable = CudaDevice(0, api).load(replace(made, tensors=made.tensors | {"label": label}))
    executable.write("label", np.array([1, 2, 3]))
    with pytest.raises(UsageError, match="shape"):
        executable.write("label", np.zeros(5))
    for i in range(4):
        executable.write("x", np.full((1, 2, 3), i))
        executable.run()
    assert executable.read("label").tolist() == [1, 2, 3] and (executable.read("x") == 3).all()
    moved = [nbytes for _, _, nbytes, _ in api.named("cuMemcpyDtoDAsync")]
    assert sorted(moved) == [12, 24]  # the label, and the scalars


def test_an_input_that_is_written_now_and_then_is_moved_before_it_is_written_again(api):
    executable = CudaDevice(0, api).load(program())
    for i in range(6):
        if i % 2:
            executable.write("lr", 0.5)
        else:
            executable.write("x", np.full((1, 2, 3), i))
        executable.run()
    assert (executable.read("x") == 4).all() and executable.read("lr") == 0.5
    # lr is 0 in the first step.
    np.testing.assert_allclose(executable.read("w"), 1 + 0.5 * (0 + 2 + 2 + 4 + 4))


def test_losses_wait_until_they_are_asked_for(api):
    executable = CudaDevice(0, api).load(program())
    for i in range(100):
        executable.write("lr", 0.1)
        executable.write("x", np.full((1, 2, 3), i))
        executable.run(log=("loss",))
    assert not api.named("cuStreamSynchronize")[1:]  # the one is that of the first weights
    expected = 6 + 0.6 * np.cumsum(np.arange(100))
    losses = [step["loss"] for step in executable.drain()]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_time_of_each_launch(api):
    """Two kernels of one launch share its time by their work; loops count all time steps."""
    twice = replace(program().launches[0], name="twice", code="twice")
    infos = tuple(KernelInfo(name, "map", (), (), 0, n) for name, n in (("a", 100), ("b", 300)))
    again = Repeat("loop", 3, False)
    launches = (
        replace(program().launches[0], kernels=infos),
        replace(twice, kernels=infos[:1], repeat=again, moves=(0, 0, 0, 0)),
    )
    launches[1].meta["name"] = "twice"
    api.kernels["step"] = Kernel(step, 4, milliseconds=8.0)
    api.kernels["twice"] = Kernel(step, 4, milliseconds=5.0)
    code = {"step": b"1", "twice": b"2"}
    executable = CudaDevice(0, api).load(program(launches=launches, code=code))
    executable.write("lr", 1.0)
    executable.write("x", np.ones((1, 2, 3)))
    for _ in range(2):
        seconds, parts = executable.time()
        assert seconds == pytest.approx(8e-3 + 3 * 5e-3)
        np.testing.assert_allclose(parts, [[0, 2e-3, 6e-3, 0, 15e-3, 0]])
    assert len(api.named("cuGraphInstantiate")) == 2
    executable.close()
    assert not api.unreleased()


def test_input_with_gaps_leaves_its_neighbours(api):
    executable = CudaDevice(0, api).load(program())
    executable.write("column", np.array([1, 2, 3]))
    raw = floats(executable.blocks["arena"].address + 64, 6)
    assert raw.tolist() == [1, 0, 2, 0, 3, 0]


def test_log_longer_than_its_ring(api):
    executable = CudaDevice(0, api).load(program())
    for _ in range(1100):
        executable.run(log=("loss",))
    assert len(executable.drain()) == 1100


def test_wrong_shape_and_name(api):
    executable = CudaDevice(0, api).load(program())
    with pytest.raises(UsageError, match=r"'x' has shape \(1, 2, 3\), but the value has \(5,\)"):
        executable.write("x", np.zeros(5))
    with pytest.raises(UsageError, match="no tensor 'y'"):
        executable.read("y")
