"""What the generated code may assume of a processor: vector width, registers, features."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compiler.llvm.machine import this_machine
from schemas.errors import BackendError

_V3 = "+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe"
# Targets by name that are not this machine: (LLVM cpu, features, float32 lanes).
LEVELS: dict[str, tuple[str, str, int]] = {
    "x86-64-v2": ("x86-64-v2", "+sse4.2,+popcnt", 4),
    "x86-64-v3": ("x86-64-v3", _V3, 8),
    "x86-64-v4": ("x86-64-v4", f"{_V3},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl", 16),
}
_USED = re.compile(r"\+(s?sse|avx(?!10)|fma|bmi|xop|tbm|f16c|lzcnt|popcnt|movbe|gfni)")


@dataclass(frozen=True, slots=True)
class Host:
    """A processor: its name and features as LLVM writes them, and the sizes the generators use."""

    name: str
    triple: str
    features: str
    lanes: int  # float32 in one vector register
    registers: int  # vector registers

    @property
    def fma(self) -> bool:
        return not self.x86 or "+fma," in f"{self.features},"

    @property
    def x86(self) -> bool:
        return self.triple.startswith(("x86_64", "amd64", "i686"))

    @property
    def required(self) -> str:
        """The features that generated code may use, so that a processor without them is refused.

        The others of x86 are for system software and for what a program asks for by name.
        """
        if not self.x86:
            return self.features
        return ",".join(filter(_USED.match, self.features.split(",")))

    @property
    def pointers(self) -> int:
        """Row pointers that an inner loop can keep in general registers."""
        return 10 if self.x86 else 20


def find_host(target: str | None = None) -> Host:
    """Returns this machine, or a target such as `x86-64-v3`; `/8` behind it sets the lanes.

    Raises BackendError for a name that is not known.
    """
    name, _, forced = (target or "host").partition("/")
    machine = this_machine()
    triple = machine.triple
    if name in LEVELS and triple.startswith("x86_64"):
        cpu, features, lanes = LEVELS[name]
    elif name in ("host", machine.cpu):
        cpu, features = machine.cpu, machine.features
        lanes = _widest(triple, features)
    else:
        known = ", ".join(("host", *LEVELS))
        raise BackendError(f"unknown cpu target '{target}'", hint=f"known targets: {known}")
    if forced:
        lanes = int(forced)
    wide = "+avx512f" in features or not triple.startswith("x86_64")
    return Host(cpu, triple, features, lanes, 32 if wide else 16)


def _widest(triple: str, features: str) -> int:
    if "+avx512f," in features and "+avx512vl" in features:
        return 16
    if "+avx2," in features:
        return 8
    return 4
