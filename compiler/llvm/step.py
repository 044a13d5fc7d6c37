"""The step function: every thread's share of every kernel, and barriers between launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compiler.kernels.schedule import Loop, Place, Schedule
from compiler.llvm.bound import Memory
from compiler.llvm.host import Host
from compiler.llvm.piece import Piece

# The sync block, in bytes: arrived, generation (i32, a cache line each), yield (a function
# pointer `i32 (i32 microseconds)`, which waits for so long or less), call (a function pointer
# `i32 (i64 launch)`, for launches that call Python; 0: leave the step), whether a call failed
# (i32); then a row of i64 for each thread, in whole cache lines: how many steps it has begun, when
# it last looked at the clock, when the step began, and how much has gone by, in all steps together,
# in each part of the step: the kernels of a launch in order, then the wait for the other threads.
ARRIVED, GENERATION, YIELD, CALL, FAILED, ROWS = 0, 64, 128, 136, 192, 256
_BEGUN, _CLOCK, _START, _PARTS = range(4)  # of a row
_SPINS = 1000  # some 20 microseconds
_LINGER = _SPINS + 1000  # rounds of waiting for another step, some 300 microseconds
_NAP = 20  # microseconds; only while Python runs

_BARRIER = f"""
define internal i32 @relax(ptr %sync, i32 %n) alwaysinline nounwind {{
  %long = icmp sgt i32 %n, {_SPINS}
  br i1 %long, label %yield, label %spin
spin:
  PAUSE
  br label %leave
yield:
  %at = getelementptr i8, ptr %sync, i64 {YIELD}
  %f = load ptr, ptr %at, align 8
  %result = call i32 %f(i32 {_NAP})
  br label %leave
leave:
  %n2 = add i32 %n, 1
  ret i32 %n2
}}

define internal void @barrier(ptr %sync, i64 %threads) noinline nounwind {{
  %generation = getelementptr i8, ptr %sync, i64 {GENERATION}
  %mine = load atomic i32, ptr %generation acquire, align 4
  %before = atomicrmw add ptr %sync, i32 1 acq_rel
  %all = trunc i64 %threads to i32
  %others = sub i32 %all, 1
  %last = icmp eq i32 %before, %others
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %sync monotonic, align 4
  %next = add i32 %mine, 1
  store atomic i32 %next, ptr %generation release, align 4
  ret void
wait:
  %n = phi i32 [0, %0], [%n2, %relax]
  %now = load atomic i32, ptr %generation acquire, align 4
  %same = icmp eq i32 %now, %mine
  br i1 %same, label %relax, label %leave
relax:
  %n2 = call i32 @relax(ptr %sync, i32 %n)
  br label %wait
leave:
  ret void
}}

define internal void @mark(ptr %row, i64 %part) noinline nounwind {{
  %now = LOOK
  %clock = getelementptr i64, ptr %row, i64 {_CLOCK}
  %last = load i64, ptr %clock, align 8
  store i64 %now, ptr %clock, align 8
  %at = getelementptr i64, ptr %row, i64 %part
  %before = load i64, ptr %at, align 8
  %spent = sub i64 %now, %last
  %sum = add i64 %before, %spent
  store i64 %sum, ptr %at, align 8
  ret void
}}

define internal i64 @bound(i64 %tiles, i64 %share, i64 %threads) alwaysinline nounwind {{
  %all = mul i64 %tiles, %share
  %part = udiv i64 %all, %threads
  ret i64 %part
}}

define internal i64 @turn(i64 %thread, i64 %by, i64 %threads) alwaysinline nounwind {{
  %moved = add i64 %thread, %by
  %share = urem i64 %moved, %threads
  ret i64 %share
}}
"""

_FLUSH_X86 = """  %csr = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %csr)
  %mode = load i32, ptr %csr
  %flush = or i32 %mode, 32832
  %new = alloca i32
  store i32 %flush, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)"""
_AGAIN_X86 = "  call void @llvm.x86.sse.ldmxcsr(ptr %new)"
_FLUSH_ARM = """  %mode = call i64 @llvm.aarch64.get.fpcr()
  %flush = or i64 %mode, 16777216
  call void @llvm.aarch64.set.fpcr(i64 %flush)"""
_AGAIN_ARM = "  call void @llvm.aarch64.set.fpcr(i64 %flush)"
# (pause, enter flush-to-zero mode, leave it, enter it again, read the clock, declarations)
_TARGETS = {
    "x86": (
        "call void @llvm.x86.sse2.pause()",
        _FLUSH_X86,
        "  call void @llvm.x86.sse.ldmxcsr(ptr %csr)",
        _AGAIN_X86,
        "call i64 @llvm.readcyclecounter()",
        "declare void @llvm.x86.sse2.pause()\ndeclare void @llvm.x86.sse.stmxcsr(ptr)\n"
        "declare void @llvm.x86.sse.ldmxcsr(ptr)\ndeclare i64 @llvm.readcyclecounter()\n",
    ),
    "arm": (
        "call void @llvm.aarch64.hint(i32 1)",
        _FLUSH_ARM,
        "  call void @llvm.aarch64.set.fpcr(i64 %mode)",
        _AGAIN_ARM,
        "call i64 @llvm.readsteadycounter()",  # the cycle counter is not for users there
        "declare void @llvm.aarch64.hint(i32)\ndeclare i64 @llvm.aarch64.get.fpcr()\n"
        "declare void @llvm.aarch64.set.fpcr(i64)\ndeclare i64 @llvm.readsteadycounter()\n",
    ),
    "other": ("", "", "", "", "add i64 0, 0", ""),
}


@dataclass(frozen=True, slots=True)
class Call:
    """What a kernel is in the step: a function, and the memory that its parameters stand for."""

    symbol: str
    piece: Piece
    memory: Mapping[str, Memory]


def emit_step(
    schedule: Schedule,
    calls: Mapping[str, Call],
    places: Mapping[str, Place],
    slots: Sequence[str],
    host: Host,
) -> str:
    """Returns the module of the step; `calls` gives each kernel's function by its name."""
    kind = "x86" if host.x86 else "arm" if host.triple.startswith(("aarch64", "arm64")) else "other"
    pause, enter, leave, again, clock, declares = _TARGETS[kind]
    lines: list[str] = []
    part = _PARTS
    for n, launch in enumerate(schedule.launches):
        rows = launch.rows if isinstance(launch, Loop) else (launch,)
        called = any(kernel.call is not None for kernel in launch)
        body: list[str] = []
        parts = {kernel.name: part + i for i, kernel in enumerate(launch)}
        wait = _mark(part + len(parts))
        part += len(parts) + 1
        if called:
            python = _PYTHON_CALL.replace("#", str(n)).replace("OUT", leave)
            body += [python.replace("IN", again), *(_mark(at) for at in parts.values())]
            rows = ((),)
        for r, row in enumerate(rows):
            for turn, kernel in enumerate(row):
                body.append(f"  ; {_word(kernel.name)}")
                moves = schedule.byte_moves(launch, kernel)
                key, time = f"{n}_{r}_{turn}", f"%t{n}"
                body += _call(key, calls[kernel.name], turn, places, slots, moves, time)
                body.append(_mark(parts[kernel.name]))
            body += [_BARRIER_CALL.replace("#", f"{n}_{r}"), wait]
        lines += _steps(n, launch, body) if isinstance(launch, Loop) else body
        lines += [_GO_ON.replace("#", str(n))] * called
    functions = dict.fromkeys(
        f"declare void @{call.symbol}({call.piece.parameters})" for call in calls.values()
    )
    entry = "\n".join([*_slot_loads(slots), enter])
    step = _STEP.replace("ENTER", entry).replace("BODY", "\n".join(lines)).replace("LEAVE", leave)
    step = step.replace("LOOK", clock).replace("BYTES", str(_whole_lines(8 * part)))
    barrier = _BARRIER.replace("PAUSE", pause).replace("LOOK", clock)
    return "\n".join([declares, *functions, barrier, step])


_BARRIER_CALL = """  br i1 %alone, label %after#, label %meet#
meet#:
  call void @barrier(ptr %sync, i64 %threads)
  br label %after#
after#:"""

# Thread 0 calls Python, in the processor's usual mode; the others wait at the barrier behind it.
_PYTHON_CALL = f"""  br i1 %first, label %python#, label %called#
python#:
OUT
  %pcall# = getelementptr i8, ptr %sync, i64 {CALL}
  %python_f# = load ptr, ptr %pcall#, align 8
  %ok# = call i32 %python_f#(i64 #)
IN
  %bad# = icmp eq i32 %ok#, 0
  %flag# = zext i1 %bad# to i32
  store i32 %flag#, ptr %failed, align 4
  br label %called#
called#:"""
# Behind the barrier, all threads leave a step whose call failed.
_GO_ON = """  %fail# = load i32, ptr %failed, align 4
  %stop# = icmp ne i32 %fail#, 0
  br i1 %stop#, label %out, label %go#
go#:"""

# Thread 0 runs one step. The others run as many as it begins, and return when it begins no more.
_STEP = f"""
define void @step(ptr %slots, i64 %thread, i64 %threads, ptr %sync) nounwind {{
ENTER
  %alone = icmp eq i64 %threads, 1
  %first = icmp eq i64 %thread, 0
  %failed = getelementptr i8, ptr %sync, i64 {FAILED}
  %offset = mul i64 %thread, BYTES
  %rows = getelementptr i8, ptr %sync, i64 {ROWS}
  %row = getelementptr i8, ptr %rows, i64 %offset
  %clock = getelementptr i64, ptr %row, i64 {_CLOCK}
  %start = getelementptr i64, ptr %row, i64 {_START}
  br i1 %first, label %begin, label %next
next:
  %n = phi i32 [0, %0], [0, %out], [%n2, %linger]
  %asked = load atomic i64, ptr %rows acquire, align 8
  %begun = load i64, ptr %row, align 8
  %ready = icmp ne i64 %asked, %begun
  br i1 %ready, label %begin, label %linger
linger:
  %n2 = call i32 @relax(ptr %sync, i32 %n)
  %over = icmp eq i32 %n2, {_LINGER}
  br i1 %over, label %end, label %next
begin:
  %now = LOOK
  store i64 %now, ptr %clock, align 8
  store i64 %now, ptr %start, align 8
  %before = load i64, ptr %row, align 8
  %count = add i64 %before, 1
  store atomic i64 %count, ptr %row release, align 8
BODY
  br label %out
out:
  br i1 %first, label %end, label %next
end:
LEAVE
  ret void
}}
"""


def _steps(n: int, loop: Loop, body: list[str]) -> list[str]:
    """The launches of one time step, once for each step."""
    first, by, last = (loop.count - 1, -1, -1) if loop.backwards else (0, 1, loop.count)
    return [
        f"  br label %enter{n}",
        f"enter{n}:",
        f"  br label %step{n}",
        f"step{n}:",
        f"  %t{n} = phi i64 [{first}, %enter{n}], [%u{n}, %again{n}]",
        *body,
        f"  br label %again{n}",
        f"again{n}:",
        f"  %u{n} = add i64 %t{n}, {by}",
        f"  %over{n} = icmp eq i64 %u{n}, {last}",
        f"  br i1 %over{n}, label %done{n}, label %step{n}",
        f"done{n}:",
    ]


def _mark(part: int) -> str:
    """Notes the time that has gone by in a part: some ten nanoseconds, so it is always done."""
    return f"  call void @mark(ptr %row, i64 {part})"


def _whole_lines(nbytes: int) -> int:
    """Returns a size rounded up to cache lines: no two threads write to the same one."""
    return -(-nbytes // 64) * 64


def _slot_loads(slots: Sequence[str]) -> list[str]:
    lines = []
    for n in range(len(slots)):
        lines.append(f"  %sa{n} = getelementptr ptr, ptr %slots, i64 {n}")
        lines.append(f"  %s{n} = load ptr, ptr %sa{n}, align 8")
    return lines


def _call(
    key: str,
    call: Call,
    turn: int,
    places: Mapping[str, Place],
    slots: Sequence[str],
    moves: Mapping[str, int],
    time: str,
) -> list[str]:
    """One kernel: this thread's slice of its tiles; threads take turns at the first slice.

    In a loop, pointers are `moves` bytes further on in each time step.
    """
    lines, args = [], []
    for n, buffer in enumerate(call.piece.buffers):
        memory = call.memory[buffer]
        place = places[memory.buffer]
        slot, at = slots.index(place.slot), place.offset + memory.offset
        lines.append(f"  %b{key}_{n} = getelementptr i8, ptr %s{slot}, i64 {at}")
        if move := moves.get(memory.buffer):
            lines.append(f"  %m{key}_{n} = mul i64 {time}, {move}")
            lines.append(f"  %c{key}_{n} = getelementptr i8, ptr %b{key}_{n}, i64 %m{key}_{n}")
            args.append(f"ptr %c{key}_{n}")
            continue
        args.append(f"ptr %b{key}_{n}")
    share = "%thread"
    if turn:
        share = f"%t{key}"
        lines.append(f"  {share} = call i64 @turn(i64 %thread, i64 {turn}, i64 %threads)")
    bound = f"call i64 @bound(i64 {call.piece.tiles}, i64"
    lines += [
        f"  %lo{key} = {bound} {share}, i64 %threads)",
        f"  %n{key} = add i64 {share}, 1",
        f"  %hi{key} = {bound} %n{key}, i64 %threads)",
        f"  call void @{call.symbol}({', '.join([*args, f'i64 %lo{key}', f'i64 %hi{key}'])})",
    ]
    return lines


def _word(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in name)[:60]
