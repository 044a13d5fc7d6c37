"""The cpu device: memory, views, sharing, threads, interrupts, refusals."""

from __future__ import annotations

import ctypes
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from compiler.backends.cpu import Backend
from compiler.kernels.index import Axis, index
from compiler.kernels.kernel import Acc, Const, Kernel, Load, Op, Reduce, Store
from compiler.kernels.schedule import Buffer, Place, Schedule
from runtime.cpu import CpuDevice, default_threads
from schemas.errors import BackendError
from schemas.program import Program, Slot, Tensor

N = 1000


def add(a, b):
    return Op("add", (a, b), "f32")


def program(name="count", size=N) -> Program:
    """`state += 1` and `total = sum(state)`; x is seen transposed, label as i32."""
    i, j = Axis("i", size), Axis("j", size)
    state = Load("state", index(i), "f32")
    bump = Kernel("bump", (i,), (Store("state", index(i), add(state, Const(1.0)), "f32"),))
    sums = Reduce(0, "sum", (j,), Load("state", index(j), "f32"), "f32")
    total = Kernel("total", (), (sums, Store("total", index(0), Acc(0, "f32"), "f32")))
    buffers = {
        "state": Buffer("state", "f32", size, "state"),
        "total": Buffer("total", "f32", 1, "output"),
    }
    places = {"state": Place("state", 0), "total": Place("arena", 64)}
    slots = ("arena", "state")
    made = Backend().compile(name, Schedule(((bump,), (total,)), buffers), places, slots)
    tensors = {
        "state": Tensor("state", "state", "f32", (size,), "state", 0, (size,), (1,)),
        "total": Tensor("total", "output", "f32", (), "arena", 64, (), ()),
        "x": Tensor("x", "input", "f32", (2, 6), "arena", 128, (2, 3, 2), (6, 1, 3)),
        "label": Tensor("label", "input", "i32", (3,), "arena", 256, (3,), (1,)),
    }
    return Program(
        name,
        "host",
        made.launches,
        (Slot("arena", 512, False), Slot("state", 4 * size, True)),
        tensors,
        initial={"state": tuple((float(i), 1) for i in range(size))},
        code=made.code,
        text=made.text,
        meta=made.meta,
    )


@pytest.fixture(scope="module")
def made() -> Program:
    return program()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_steps_on_any_number_of_threads(made, threads):
    executable = CpuDevice(threads).load(made)
    for _ in range(200):
        executable.run()
    np.testing.assert_array_equal(executable.read("state"), np.arange(N) + 200)
    assert executable.read("total") == N * (N - 1) / 2 + 200 * N
    assert executable.read("total").shape == ()
    executable.close()


def test_logged_outputs_are_of_their_step(made):
    executable = CpuDevice(2).load(made)
    executable.run(("total",))
    executable.run()
    executable.run(("total",))
    executable.synchronize()
    start = N * (N - 1) / 2
    assert executable.drain() == [{"total": start + N}, {"total": start + 3 * N}]
    assert executable.drain() == []
    executable.close()


def test_tensors_are_views_in_the_order_that_users_see(made):
    executable = CpuDevice(1).load(made)
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    executable.write("x", values)
    np.testing.assert_array_equal(executable.read("x"), values)
    raw = executable.slot("arena")[128 : 128 + 48].view(np.float32)
    np.testing.assert_array_equal(raw[:6], [0, 2, 4, 1, 3, 5])
    executable.write("label", np.array([1.0, 2.0, 7.0]))
    assert executable.read("label").dtype == np.int32
    executable.write("x", 5)
    assert (executable.read("x") == 5).all()
    copy = executable.read("x")
    copy[:] = 0
    assert (executable.read("x") == 5).all()
    executable.close()


def test_a_large_blob_is_turned_piece_by_piece(made):
    shape = (100, 20011)  # several pieces, the last of them smaller
    turned = Tensor("big", "param", "f32", shape, "big", 0, shape, (1, 100))
    slots = (*made.slots, Slot("big", 4 * 100 * 20011, True))
    big = replace(made, slots=slots, tensors={**made.tensors, "big": turned})
    executable = CpuDevice(1).load(big)
    values = np.arange(100 * 20011, dtype=np.float32).reshape(shape)
    executable.write("big", values)
    np.testing.assert_array_equal(executable.slot("big").view(np.float32), values.T.ravel())
    np.testing.assert_array_equal(executable.read("big"), values)
    executable.close()


def test_memory_is_aligned_and_zeroed(made):
    executable = CpuDevice(1).load(made)
    for slot in made.slots:
        assert executable.slot(slot.name).ctypes.data % 64 == 0
    assert not executable.slot("arena").any()
    executable.close()


def test_persistent_slots_are_shared_by_name_and_size(made):
    device = CpuDevice(2)
    train = device.load(made)
    test, other = device.load(made, share=train), device.load(program("b", 10), share=train)
    train.run()
    test.run()
    np.testing.assert_array_equal(train.read("state"), np.arange(N) + 2)
    assert other.read("state").size == 10
    # The scratch arena is not shared, and what is shared outlives its first owner.
    train.close()
    test.run()
    np.testing.assert_array_equal(test.read("state"), np.arange(N) + 3)
    test.close()
    other.close()


def test_an_interrupted_step_is_finished(made):
    executable = CpuDevice(3).load(made)
    team = executable._team
    plain = team._wake

    def interrupted():
        team._wake = plain
        raise KeyboardInterrupt

    for at in ("before", "after"):
        if at == "before":
            team._wake = interrupted
        else:
            call = team._call

            def after(share, call=call):
                call(share)
                team._call = call
                raise KeyboardInterrupt

            team._call = lambda share, call=call: (
                after(share)
                if threading.current_thread() is threading.main_thread()
                else call(share)
            )
        with pytest.raises(KeyboardInterrupt):
            executable.run()
    executable.run()
    np.testing.assert_array_equal(executable.read("state"), np.arange(N) + 3)
    executable.close()


def test_a_worker_waits_for_the_next_step_before_it_sleeps(made):
    executable = CpuDevice(2).load(made)
    team, main = executable._team, threading.current_thread()
    lingers, begun, shares = threading.Event(), threading.Event(), []

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)
    def give_way(microseconds):
        if threading.current_thread() is not main and list(team._begun) == [1, 1]:
            lingers.set()
            begun.wait(10)
        elif lingers.is_set():  # the second step has begun, and waits for the worker
            begun.set()
        return 0

    team._sync[128:136].view(np.uint64)[0] = ctypes.cast(give_way, ctypes.c_void_p).value
    plain = team._call
    team._call = lambda share: (shares.append(share), plain(share))
    executable.run()
    assert lingers.wait(10)
    came = shares.count(1)
    executable.run()
    assert shares.count(1) == came
    np.testing.assert_array_equal(executable.read("state"), np.arange(N) + 2)
    executable.close()


def test_closing_ends_the_threads(made):
    before = threading.active_count()
    executable = CpuDevice(4).load(made)
    assert threading.active_count() == before + 3
    executable.run()
    executable.close()
    executable.close()
    assert threading.active_count() == before


def test_one_that_is_dropped_ends_its_threads(made):
    before = threading.active_count()
    for _ in range(20):
        executable = CpuDevice(4).load(made)
        executable.run()  # a worker may still be in the step when it returns
        del executable
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_default_is_what_the_process_may_use():
    assert CpuDevice().threads == default_threads() >= 1


@pytest.mark.parametrize(
    "change, text",
    [
        ({"features": "+avx512f,+nonsense"}, "it lacks nonsense"),
        ({"triple": "riscv64-unknown-linux-gnu"}, "compiled for"),
    ],
)
def test_other_processors_are_refused(made, change, text):
    with pytest.raises(BackendError, match=text):
        CpuDevice(1).load(replace(made, meta={**made.meta, **change}))


def test_programs_of_other_backends_are_refused(made):
    with pytest.raises(BackendError, match="not for this processor"):
        CpuDevice(1).load(replace(made, target="sm_90", meta={}, code={}))


def test_unknown_targets_are_refused():
    with pytest.raises(BackendError, match="known targets: host, x86-64-v2"):
        Backend("pentium")
