"""LLVM IR text to object code, through llvmlite."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache, partial

import llvmlite.binding as llvm

from compiler.helpers import processors, run_all
from compiler.llvm.host import Host
from compiler.llvm.machine import version

# The IR is tiled, unrolled and vectorised already: what is left to do is to put locals into
# registers and to tidy up. Levels 1 to 3 compiled for twice as long and made steps no faster.
_PASSES = (
    *("always_inliner", "sroa", "simplify_cfg", "instruction_combine"),
    *("loop_rotate", "new_gvn", "instruction_combine", "simplify_cfg"),
)

# With phi-of-ops, the new GVN of LLVM 22 aborts the process on a few kernels ("Value number changed
# after main loop completed"). Steps of lenet, alexnet and resnet18 are the same code without them.
_OPTION = "-enable-phi-of-ops=false"

# A helper takes 0.15 s to start, in which one process compiles some 80 kB of text.
_WORTH = 150_000


@lru_cache(maxsize=4)
def _machine(host: Host) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.set_option("netdef", _OPTION)
    target = llvm.Target.from_triple(host.triple)
    return target.create_target_machine(
        cpu=host.name, features=host.features, opt=2, reloc="pic", codemodel="default"
    )


def _optimised(ir: str, machine: llvm.TargetMachine, triple: str) -> llvm.ModuleRef:
    head = f'target datalayout = "{machine.target_data}"\ntarget triple = "{triple}"\n'
    module = llvm.parse_assembly(head + ir)
    module.verify()
    passes = llvm.create_new_module_pass_manager()
    for name in _PASSES:
        getattr(passes, f"add_{name}_pass")()
    options = llvm.create_pipeline_tuning_options()
    passes.run(module, llvm.create_pass_builder(machine, options))
    return module


def key_of(ir: str, host: Host) -> str:
    """Returns a name for a module's object code: everything that decides what it is."""
    parts = (ir, version(), host.name, host.features, host.triple)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compile_object(ir: str, host: Host) -> bytes:
    """Verifies, optimises and compiles a module."""
    machine = _machine(host)
    made: bytes = machine.emit_object(_optimised(ir, machine, host.triple))
    return made


def compile_all(modules: Sequence[str], host: Host, processes: int | None = None) -> list[bytes]:
    """Returns the object code of each module.

    `processes`: how many work on it, this one included; None: as many as are worth it.
    """
    if processes is None:
        processes = min(processors(), 1 + sum(map(len, modules)) // _WORTH)
    return run_all(partial(compile_object, host=host), modules, processes, cost=len)


def assembly(ir: str, host: Host) -> str:
    """Returns a module's machine code as text."""
    machine = _machine(host)
    text: str = machine.emit_assembly(_optimised(ir, machine, host.triple))
    return text
