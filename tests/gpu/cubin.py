"""What machine code says of its kernels, as the driver reads it: sections `.nv.info` of its ELF."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.gpu.handles import Kernel

_SIZED = 4  # a format of attributes: two bytes of length, then as many bytes
_PARAMETER, _THREADS = 0x17, 0x10  # EIATTR_KPARAM_INFO, EIATTR_REQNTID
_READ_TILE = 0x5B4  # opcode of UTMALDG: the copy engine reads a tile by a descriptor


def kernel_in(image: bytes, name: str) -> Kernel | None:
    """Returns a kernel that does nothing, but takes what the one in the machine code takes."""
    sections = _sections(image)
    info, code = (sections.get(f".{kind}.{name}") for kind in ("nv.info", "text"))
    if info is None or code is None:
        return None
    attributes = list(_attributes(info))
    pointers = [struct.unpack("<IHHI", data) for kind, data in attributes if kind == _PARAMETER]
    # All are 8-byte addresses, one after another; the last two are Triton's own.
    places = sorted((ordinal, offset, flags >> 18) for _, ordinal, offset, flags in pointers)
    assert places == [(n, 8 * n, 8) for n in range(len(places))], places
    (threads,) = (struct.unpack("<III", data)[0] for kind, data in attributes if kind == _THREADS)
    opcodes = {first & 0xFFF for first, _ in struct.iter_unpack("<QQ", code)}
    scratch = _READ_TILE in opcodes  # where its programs make the descriptors
    return Kernel(lambda pointers: None, len(places) - 2, threads=threads, scratch=scratch)


def _sections(image: bytes) -> dict[str, bytes]:
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names = struct.unpack_from("<HHH", image, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", image, table + n * size) for n in range(count)]
    texts = image[heads[names][4] :]
    return {
        texts[head[0] : texts.index(0, head[0])].decode(): image[head[4] : head[4] + head[5]]
        for head in heads
    }


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(info):
        form, kind, length = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _SIZED:
            yield kind, info[at : at + length]
            at += length
