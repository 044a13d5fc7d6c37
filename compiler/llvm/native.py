"""LLVM IR text to object code, through llvmlite."""

from __future__ import annotations

import llvmlite.binding as llvm

from compiler.llvm.host import Host


def _machine(host: Host) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(host.triple)
    return target.create_target_machine(
        cpu=host.name, features=host.features, opt=2, reloc="pic", codemodel="default"
    )


def _optimised(ir: str, machine: llvm.TargetMachine, triple: str) -> llvm.ModuleRef:
    head = f'target datalayout = "{machine.target_data}"\ntarget triple = "{triple}"\n'
    module = llvm.parse_assembly(head + ir)
    module.verify()
    # The IR is already tiled and vectorised: levels 2 and 3 took a third more time to compile LeNet
    # and GoogLeNet and made steps no faster.
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    # The generators vectorise by themselves; LLVM's attempts cost compile time only.
    options.loop_vectorization = False
    options.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return module


def compile_object(ir: str, host: Host) -> bytes:
    """Verifies, optimises and compiles a module."""
    machine = _machine(host)
    made: bytes = machine.emit_object(_optimised(ir, machine, host.triple))
    return made


def assembly(ir: str, host: Host) -> str:
    """Returns a module's machine code as text."""
    machine = _machine(host)
    text: str = machine.emit_assembly(_optimised(ir, machine, host.triple))
    return text
