"""A GPU that is made of Python, and runs the machine's own code: PTX, as it was compiled."""

from __future__ import annotations

from functools import lru_cache

from runtime.calls import Hosts
from runtime.cuda import CudaDevice, CudaExecutable
from runtime.executable import Executable
from schemas.program import Program
from tests.gpu.fake_driver import FakeDriver
from tests.gpu.handles import Function, Node
from tests.gpu.ptx.machine import Emulated
from tests.gpu.ptx.memory import Global
from tests.gpu.ptx.text import read


class EmulatedDriver(FakeDriver):
    """`texts`: the PTX of machine code. `seed` decides in which order blocks run."""

    def __init__(self, architecture: tuple[int, int], seed: int = 0) -> None:
        super().__init__(architecture)
        self.texts: dict[bytes, str] = {}
        self.seed = seed

    def execute(self, function: Function, node: Node) -> None:
        emulated = _emulated(self.texts[function.module.image])
        given = [*node.pointers, 0, 0][: len(emulated.code.parameters)]
        memory = Global(self.device.blocks.values())
        emulated.run(node.grid, node.shared, given, memory, self.seed)


@lru_cache(maxsize=256)
def _emulated(ptx: str) -> Emulated:
    return Emulated(read(ptx))


class EmulatedDevice(CudaDevice):
    """A CudaDevice on an emulated driver. Everything else is what runs on a real one."""

    def __init__(self, target: str, seed: int = 0) -> None:
        api = EmulatedDriver((int(target[3:-1]), int(target[-1])), seed)
        super().__init__(0, api)
        self._texts: dict[bytes, str] = api.texts

    def load(
        self, program: Program, share: Executable | None = None, hosts: Hosts | None = None
    ) -> CudaExecutable:
        for name, code in program.code.items():
            self._texts[code] = program.text[f"{name}.ptx"]
        return super().load(program, share, hosts)
