"""Sinks: the HDF5 files that layers of a net write, whole at the end of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from runtime.executable import Executable
from runtime.files import publish, temporary_name
from runtime.packages import package
from schemas.errors import SourceError
from schemas.params import Sink


class Sinks:
    """Collects the rows that HDF5Output layers have after each run of a net.

    They go to a temporary file beside the one that is named; `finish` syncs it and gives it its
    name, `discard` removes it. So a run that is killed or fails leaves no part of a file, and what
    was there before stays. Paths are relative to the working folder, as in Caffe.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = tuple(sinks)
        self._open: dict[str, Any] = {}  # file name -> h5py.File
        if sinks:
            package("h5py", "hdf5", "HDF5 files", sinks[0].span)
            check_files(sinks)
        for sink in sinks:
            folder = Path(sink.file).parent
            if not folder.is_dir():
                raise _wrong(sink, f"there is no folder '{folder}'")

    def collect(self, exe: Executable) -> None:
        """Adds the rows of the run just made."""
        for sink in self.sinks:
            try:
                file = self._file(sink)
                for dataset, tensor in sink.tensors.items():
                    _append(file, dataset, exe.read(tensor))
            except (OSError, ValueError, RuntimeError) as error:
                self.discard()
                raise _wrong(sink, f"cannot write '{sink.file}': {error}") from None

    def finish(self) -> None:
        """Gives the files their names; does nothing where nothing was collected."""
        for sink in self.sinks:
            if sink.file in self._open:
                try:
                    self._open.pop(sink.file).close()
                    publish(Path(sink.file))
                except OSError as error:
                    self.discard()
                    raise _wrong(sink, f"cannot write '{sink.file}': {error}") from None

    def discard(self) -> None:
        """Removes what was collected."""
        for sink in self.sinks:
            if (file := self._open.pop(sink.file, None)) is not None:
                with contextlib.suppress(OSError, RuntimeError):
                    file.close()
            with contextlib.suppress(OSError):
                temporary_name(Path(sink.file)).unlink(missing_ok=True)

    def __enter__(self) -> Sinks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.discard()

    def _file(self, sink: Sink) -> Any:
        if sink.file not in self._open:
            h5py = package("h5py", "hdf5", "HDF5 files")
            self._open[sink.file] = h5py.File(temporary_name(Path(sink.file)), "w")
        return self._open[sink.file]


def check_files(sinks: Iterable[Sink]) -> None:
    """Raises where two layers write to one file."""
    first: dict[Path, Sink] = {}
    for sink in sinks:
        other = first.setdefault(Path(sink.file).resolve(), sink)
        if other is not sink:
            hint = "give each phase its own file: two layers, with include: {phase: ...}"
            raise _wrong(sink, f"'{sink.file}' is written twice", hint)


def _append(file: Any, name: str, rows: Any) -> None:
    if name not in file:
        shape = (0, *rows.shape[1:])
        file.create_dataset(
            name, shape, "f4", maxshape=(None, *rows.shape[1:]), chunks=rows.shape or None
        )
    dataset = file[name]
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows


def _wrong(sink: Sink, message: str, hint: str | None = None) -> SourceError:
    return SourceError(f"layer '{sink.layer}' (HDF5Output): {message}", sink.span, hint)
