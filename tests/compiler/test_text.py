"""How graphs, launches and memory plans read; the numbering is the same each time."""

from __future__ import annotations

from compiler import text
from compiler.backends import get_backend
from compiler.frontend.build import build
from compiler.passes.arena import plan_arena
from compiler.pipeline import compile_unit
from compiler.unit import Unit
from netdef.formats import read_net

NET = """\
name: small
layers:
- {name: data, type: Input, shape: [4, 6]}
- {name: ip, type: InnerProduct, num_output: 3}
- {name: relu, type: ReLU, top: ip}
"""
GRAPH = """\
%0 = input data : f32[4, 6]  # data
%1 = param ip/weight : f32[3, 6]  # ip
%2 = contract %0 %1 labels=nc,oc->no : f32[4, 3]  # ip
%3 = param ip/bias : f32[3]  # ip
%4 = reshape %3 : f32[1, 3]  # ip
%5 = broadcast %4 : f32[4, 3]  # ip
%6 = add %2 %5 : f32[4, 3]  # ip
%7 = relu %6 slope=0.0 : f32[4, 3]  # relu

output ip = %7
"""


def graph_of():
    return build(read_net(text=NET, format="yaml"), "TEST")


def test_a_graph_prints_one_node_a_line():
    graph = graph_of()
    assert text.graph_text(graph, text.numbered(graph)) == GRAPH


def test_known_nodes_keep_their_numbers_and_can_be_left_out():
    graph = graph_of()
    first = graph.nodes()[:5]
    numbers = text.numbered(graph, first)
    lines = text.graph_text(graph, numbers, skip=first).splitlines()
    assert lines[0].startswith("%5 = ")


def test_launches_and_memory_name_spec_lines_and_buffers():
    graph = graph_of()
    unit = Unit(graph, plan_arena(graph), get_backend("reference"))
    compile_unit(unit)
    fused = text.fused_text(unit.graph, unit.schedule, unit.refused, unit.backend.note)
    assert "  # ip: <string>:4: - {name: ip, type: InnerProduct, num_output: 3}\n" in fused
    assert fused.startswith("launch 0\n\n")
    memory = text.memory_text(unit.schedule, unit.memory)
    assert " a data " in memory or " b data " in memory
    assert "address       launches ->\n" in memory


def test_a_loop_says_what_happens_in_each_step():
    net = """\
layers:
- {name: x, type: Input, shape: [6, 2, 3]}
- {name: h, type: RNN, num_output: 4, bottom: x, reverse: true}
"""
    graph = build(read_net(text=net, format="yaml"), "TEST")
    unit = Unit(graph, plan_arena(graph), get_backend("reference"))
    compile_unit(unit)
    fused = text.fused_text(unit.graph, unit.schedule, unit.refused, unit.backend.note)
    assert (
        ": loop over 6 steps, backwards: 1 launch a step; written out up to 4 steps\n"
        "  node by node\n\n  in each step, 1 of 1\n" in fused
    )
    assert "  # from step to step: " in fused
