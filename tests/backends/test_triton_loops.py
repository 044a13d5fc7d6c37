"""Loops over time on the triton backend: what repeats, how pointers move, and what comes out."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from compiler.backends.triton import Backend
from compiler.frontend.build import build
from compiler.kernels.schedule import Loop
from compiler.passes.arena import plan_arena
from compiler.passes.update import Step, train_step
from compiler.pipeline import compile_unit
from compiler.triton_source import checks
from compiler.triton_source.build import programs_for
from compiler.triton_source.function import BARRIER, Function
from compiler.triton_source.tiles import TARGETS
from compiler.unit import Unit
from netdef.engine import Engine, open_engine
from netdef.formats import read_net
from netdef.net import Net
from runtime.triton_interpreter import InterpreterDevice
from schemas.program import KernelInfo, Launch, Program, Repeat, Slot
from schemas.program_file import pack_program, unpack_program
from schemas.solver import SolverSpec
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.hand_loops import ROW, fill, hand_loop
from tests.recurrent.nets import load, numbers
from tests.recurrent.test_cycles import NETS

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

# A recurrent part from the sequence `x` to `h`; SIZE values of N sequences, STEPS of time.
LAYERS = {
    "rnn": "{type: RNN, bottom: x, num_output: SIZE}",
    "lstm": "{type: LSTM, bottom: [x, cont], num_output: SIZE}",
    "lstm_static": "{type: LSTM, bottom: [x, cont, static], num_output: SIZE, reverse: true}",
    "lstm_exposed": "{type: LSTM, bottom: [x, cont, h_0, c_0], top: [h, h_T, c_T], "
    "num_output: SIZE, expose_hidden: true}",
    "gru_after": "{type: GRU, bottom: [x, cont], num_output: SIZE, reset: AFTER}",
    "gru_before": "{type: GRU, bottom: x, num_output: SIZE, reset: BEFORE}",
}
RECURRENT = {name: f"- {text[:1]}name: r, top: h, {text[1:]}" for name, text in LAYERS.items()}
RECURRENT["lstm_exposed"] = RECURRENT["lstm_exposed"].replace("top: h, ", "", 1)
RECURRENT["elman"] = """\
- {name: wx, type: InnerProduct, bottom: x, top: wx, num_output: SIZE, axis: 2}
- {name: wh, type: InnerProduct, bottom: "h[t-1]", top: wh, num_output: SIZE, axis: 2}
- {name: sum, type: Eltwise, bottom: [wx, wh], top: sum}
- {name: h, type: TanH, bottom: sum, top: h}
"""
INPUTS = {
    "x": "STEPS, N, 3",
    "cont": "STEPS, N",
    "static": "N, 2",
    "h_0": "1, N, SIZE",
    "c_0": "1, N, SIZE",
    "target": "STEPS, N, SIZE",
}


def net_of(name: str, steps: int = 6, n: int = 2, size: int = 4) -> str:
    """Returns a net with one of the recurrent parts and a loss over all of its steps."""
    part = RECURRENT[name]
    lines = [
        f"- {{name: {key}, type: Input, top: {key}, shape: [{shape}]}}"
        for key, shape in INPUTS.items()
        if re.search(rf"\b{key}\b", part) or key == "target"
    ]
    lines += [part, "- {name: loss, type: EuclideanLoss, bottom: [h, target]}"]
    text = "\n".join(["layers:", *lines])
    for word, value in {"STEPS": steps, "SIZE": size, "N": n}.items():
        text = re.sub(rf"\b{word}\b", str(value), text)
    return text


def step_of(text: str) -> tuple[Step, object]:
    graph = build(read_net(text=text, format="yaml"), "TRAIN")
    arena = plan_arena(graph)
    return train_step(graph, arena, SolverSpec(momentum=0.9)), arena


class _Enough(Exception):
    """The passes before the last have run."""


def compiled(text: str, target: str = "interpreter", persistent: bool = False) -> Program:
    """Compiles a whole training step; for a GPU only its loops, which takes less time."""
    step, arena = step_of(text)
    backend = Backend(target, persistent=persistent)
    unit = Unit(step.graph, arena, backend, step.names, step.tables)
    if target == "interpreter":
        return compile_unit(unit)

    def stop(name: str, unit: Unit) -> None:
        if name == "memory":
            raise _Enough

    with pytest.raises(_Enough):
        compile_unit(unit, stop)
    loops = tuple(launch for launch in unit.schedule.launches if isinstance(launch, Loop))
    schedule = replace(unit.schedule, launches=loops)
    made = backend.compile("loops", schedule, unit.memory.places, ())
    slots = (*unit.memory.slots, *made.slots)
    return Program("loops", target, made.launches, slots, {}, code=made.code, text=made.text)


# ---- what comes out ------------------------------------------------------------------------------


def interpreted(persistent: bool = False) -> Engine:
    return Engine(Backend("interpreter", persistent=persistent), InterpreterDevice())


def run_steps(text: str, engine: Engine, count: int = 2):
    """Trains from fixed weights and data; returns every output, carried state and weight.

    The second step starts from the states that the first has left.
    """
    step, arena = step_of(text)
    graph = step.graph
    exe = engine.load(step, arena)
    rng = np.random.default_rng(3)
    for key, info in graph.params.items():
        exe.write(key, rng.normal(0, 0.4, info.shape))
    found = {}
    for i in range(count):
        for name, node in graph.inputs.items():
            marks = rng.integers(0, 2, node.shape)
            exe.write(name, marks if name == "cont" else rng.normal(size=node.shape))
        for name, value in {"iteration": i, "lr": 0.1, "rate_scale": 1.0}.items():
            exe.write(name, value)
        exe.run()
        found.update({f"{name} of step {i}": exe.read(name) for name in graph.outputs})
    found.update({key: exe.read(key) for key in (*graph.params, *graph.states)})
    engine.close()
    return found


@pytest.mark.parametrize("name", RECURRENT)
def test_training_follows_the_reference(name):
    follows_the_reference(net_of(name), persistent=False)


@pytest.mark.parametrize("name", ["lstm", "gru_before", "elman"])
def test_loops_of_one_launch_follow_the_reference(name):
    """The interpreter has one program, which cannot wait for others: the order of all else."""
    follows_the_reference(net_of(name), persistent=True)


def follows_the_reference(text: str, persistent: bool) -> None:
    want = run_steps(text, open_engine("reference"))
    got = run_steps(text, interpreted(persistent))
    assert any("weight" in key for key in want)
    for key, array in want.items():
        size = max(1e-2, float(np.abs(array).max()))
        np.testing.assert_allclose(got[key], array, rtol=0, atol=1e-4 * size, err_msg=key)


CYCLES = ("future", "stacked", "two cycles that cross", "an image a step", "joined with the input")


@pytest.mark.parametrize("name", CYCLES)
def test_cycles_follow_the_reference(name):
    wanted = load(NETS[name], "reference")
    net = Net(wanted.spec, "TEST", engine=interpreted())
    for layer, blobs in wanted.params.items():
        for blob, value in blobs.items():
            net.params[layer][blob] = value
    (shape,) = net.inputs.values()
    out = next(reversed(net.graph.blobs))
    x, found = numbers(shape), []
    for one in (wanted, net):
        one.forward(x=x)
        y = one.forward(x=x, blobs=out)[out]
        slopes = one.backward(**{out: numbers(y.shape, 3)})
        grads = [value for blobs in one.grads.values() for value in blobs.values()]
        found.append([y, slopes["x"], *map(np.asarray, grads)])
    for want, got in zip(*found, strict=True):
        size = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * size)


# ---- what a program says -------------------------------------------------------------------------


def repeated(program: Program) -> list[KernelInfo]:
    """Returns the kernels of all loops."""
    return [k for launch in program.launches if launch.repeat for k in launch.kernels]


def test_a_program_does_not_grow_with_the_number_of_steps():
    short, long = (compiled(net_of("lstm", steps)) for steps in (8, 80))
    assert [k.name for k in repeated(short)] == [k.name for k in repeated(long)]
    repeats = {launch.repeat for launch in long.launches} - {None}
    assert repeats == {Repeat("loop1", 80, False), Repeat("loop2", 80, True)}
    inside = sum(launch.repeat is not None for launch in long.launches)
    plain = len(long.launches) - inside
    assert len(list(long.runs())) == plain + 80 * inside


def test_few_steps_are_written_out():
    program = compiled(net_of("lstm", steps=4))
    assert not any(launch.repeat or launch.moves for launch in program.launches)
    assert list(program.runs()) == [(launch, 0) for launch in program.launches]


def test_an_lstm_takes_five_launches_a_step():
    program = compiled(net_of("lstm", steps=50, n=32, size=64))
    inside = [launch.repeat.loop for launch in program.launches if launch.repeat]
    assert inside == ["loop1"] * 2 + ["loop2"] * 3


def test_loops_run_in_order():
    up, down = Repeat("a", 2, False), Repeat("b", 2, True)
    repeats = {"first": None, "one": up, "two": up, "three": down, "last": None}
    launches = tuple(Launch(name, (), repeat=repeat) for name, repeat in repeats.items())
    runs = [(launch.name, t) for launch, t in Program("p", "t", launches, (), {}).runs()]
    loops = [("one", 0), ("two", 0), ("one", 1), ("two", 1), ("three", 1), ("three", 0)]
    assert runs == [("first", 0), *loops, ("last", 0)]


def test_a_program_file_keeps_its_loops():
    program = compiled(net_of("rnn"))
    again = unpack_program(pack_program(program), "rnn.ndp")
    assert again.launches == program.launches
    assert any(launch.repeat for launch in again.launches)


def test_the_work_of_a_loop_is_that_of_all_its_steps():
    """A kernel that reads one row of a sequence a step reads the sequence once in all."""
    short, long = (repeated(compiled(net_of("rnn", steps))) for steps in (10, 20))
    assert [k.flops for k in long] == [2 * k.flops for k in short]
    assert [k.bytes for k in long] == [2 * k.bytes for k in short]


# ---- loops by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_one_buffer_read_by_step_and_as_a_whole(backwards, persistent):
    device, backend = InterpreterDevice(), Backend("interpreter", persistent=persistent)
    runs.check(device, backend, (fill(),), hand_loop(backwards))
    device.close()


def test_kernels_of_a_step_share_a_launch():
    program = runs.program(Backend("interpreter"), (fill(),), hand_loop(False))
    assert [len(launch.kernels) for launch in program.launches] == [1, 1, 2]
    last = program.launches[-1]
    pointers = sorted(zip(last.args, last.moves, strict=True))
    at = [(slot, move) for (slot, _), move in pointers]
    assert at == [("state", 0), ("x", 0), ("x", 4 * ROW), ("y", 4 * ROW), ("z", 4 * ROW)]


# ---- machine code --------------------------------------------------------------------------------

GPU = [(name, "sm_90") for name in ("rnn", "lstm", "gru_before")]
GPU += [(name, "sm_80") for name in ("lstm", "gru_after")]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("name, target", GPU)
def test_loops_do_not_spill(name, target, persistent):
    program = compiled(net_of(name, steps=20, n=16, size=64), target, persistent)
    if persistent:
        assert [launch.name for launch in program.launches] == ["loop1", "loop2"]
    else:
        assert {launch.repeat.backwards for launch in program.launches} == {False, True}
    for launch in program.launches:
        usage = checks.usage(program.code[launch.code], program.text[f"{launch.code}.ptx"])
        assert usage.spills == usage.stack == 0, (launch.name, usage)
        assert usage.registers <= 255
        assert usage.parameters == len(launch.args) + 2
        assert checks.waits(program.code[launch.code]) == (target == "sm_90")


@pytest.mark.parametrize("n, size, even", [(2, 4, True), (1, 3, False)])
def test_alignment_holds_in_every_step(n, size, even):
    """A pointer may be called a multiple of 16 bytes only if it stays one as it moves."""
    program = compiled(net_of("rnn", n=n, size=size), "sm_90")
    hints = set()
    for launch in program.launches:
        entry = re.search(r"tt\.func public @\w+\((.*?)\) attributes", launch_text(program, launch))
        arguments = re.split(r", (?=%)", entry[1])[: len(launch.args)]
        for i, argument in enumerate(arguments):
            places = [launch.args_at(t)[i][1] for t in range(launch.repeat.count)]
            aligned = all(place % 16 == 0 for place in places)
            assert ("tt.divisibility = 16" in argument) == aligned, argument
            hints |= {aligned} if launch.moves[i] else set()
    assert hints == ({True} if even else {False})


def launch_text(program: Program, launch: Launch) -> str:
    return program.text[f"{launch.code}.ttir"]


# ---- a loop as one launch ------------------------------------------------------------------------


def test_programs_of_a_loop_wait_for_each_other_after_each_row():
    program = compiled(net_of("lstm", steps=20, n=16, size=64), "sm_90", persistent=True)
    rows = {"loop1": 2, "loop2": 3}
    assert Slot(BARRIER, 4, False) in program.slots
    for launch in program.launches:
        assert launch.repeat is None and launch.moves == ()
        assert launch.meta["cooperative"] and 1 < launch.meta["grid"][0] <= 132
        assert launch.args[-1] == (BARRIER, 0)
        ptx = program.text[f"{launch.code}.ptx"]
        kinds = {"atom.global.gpu.acq_rel": "a", "ld.global.gpu.acquire": "l", "bar.sync": "b"}
        words = re.findall(r"atom\.global\.gpu\.acq_rel|ld\.global\.gpu\.acquire|bar\.sync", ptx)
        order = "".join(kinds[word] for word in words)
        # All threads have stored; one of them tells, and waits; then all go on.
        assert len(re.findall("bab+lb", order)) == rows[launch.name]
        assert order.count("a") == order.count("l") == rows[launch.name]


def test_a_loop_of_one_launch_that_spills_falls_apart(monkeypatch):
    monkeypatch.setattr("compiler.triton_source.attempts.resources", lambda cubin: (255, 16))
    program = compiled(net_of("rnn"), "sm_90", persistent=True)
    assert all(launch.repeat for launch in program.launches)
    assert BARRIER not in {slot.name for slot in program.slots}


@pytest.mark.parametrize(
    "rows, target, found",
    [
        ([[4, 3], [1]], "sm_90", 7),
        ([[200], [10]], "sm_90", 132),
        ([[264]], "sm_90", 132),
        (
            [[265]],
            "sm_90",
            "a row of kernels has 265 tiles, more than 2 for each of 132 processors",
        ),
        ([[2, 1]], "interpreter", "a row of kernels has 3 tiles, more than 2 for each of 1 "),
        ([[1]], "gfx942", "programs that wait for each other are not tried on AMD"),
    ],
)
def test_which_loops_are_one_launch(rows, target, found):
    kernel = hand.update(10)
    functions = [[Function("f", kernel, (), (), n) for n in row] for row in rows]
    got = programs_for(functions, TARGETS[target])
    assert got == found if isinstance(found, int) else str(got).startswith(found)


def test_a_layer_may_have_the_name_of_a_variable_of_the_loop():
    text = net_of("elman").replace("wh", "step").replace("name: sum,", "name: tile,")
    follows_the_reference(text, persistent=True)


def test_inspection_says_how_a_loop_runs():
    loop = hand_loop(False)
    assert Backend("interpreter").note(loop) == "the launches of a step are repeated"
    small = "one launch: 2 programs go through all steps and wait for each other"
    assert Backend("sm_90").note(loop) == small
    wide = Backend("sm_90").note(hand_loop(False, row=1 << 20))
    assert wide.startswith("the launches of a step are repeated: a row of kernels has ")


def test_kept_programs_tell_the_two_kinds_of_loop_apart():
    versions = {Backend("sm_90", persistent=one).version() for one in (False, True)}
    assert len(versions) == 2
