"""Finds the classes of Python layers: beside the net, on the path, with a stand-in for caffe."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.python_layer import Phase, PythonLayer
from schemas.errors import SpecError, did_you_mean
from schemas.host import HostSpec


def stand_in() -> ModuleType:
    """Returns a module `caffe` with what a layer file needs of it."""
    module: Any = ModuleType("caffe", "netdef's stand-in for caffe: what Python layers need of it")
    module.Layer, module.TRAIN, module.TEST = PythonLayer, Phase.TRAIN, Phase.TEST

    def missing(name: str) -> Any:
        text = "no caffe is installed; netdef stands in for caffe.Layer, TRAIN and TEST, not for"
        raise AttributeError(f"{text} '{name}'")

    module.__getattr__ = missing
    return module  # type: ignore[no-any-return]


def caffe_installed() -> bool:
    """Returns whether `import caffe` finds a package; a mere folder of that name is none."""
    try:
        found = importlib.util.find_spec("caffe")
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None


class Surroundings:
    """What the code of a net's layers finds when it imports something."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: the one that the net's file is in."""
        self.folder = folder
        self._caffe = None if caffe_installed() else stand_in()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Puts the folder first on the path, and the stand-in where there is no caffe."""
        path = str(self.folder) if self.folder is not None else None
        before = sys.modules.get("caffe")
        if path is not None:
            sys.path.insert(0, path)
        if self._caffe is not None and before is None:
            sys.modules["caffe"] = self._caffe
        try:
            yield
        finally:
            if path is not None and path in sys.path:
                sys.path.remove(path)
            if self._caffe is not None and before is None:
                sys.modules.pop("caffe", None)

    def class_of(self, spec: HostSpec) -> type[PythonLayer]:
        """Imports the module of a layer and returns its class.

        Raises SpecError where there is no such module or class, and what the module itself raises.
        """
        who = f"layer '{spec.layer}' (Python): "
        module = self._module(spec, who)
        found = getattr(module, spec.cls, None)
        if found is None:
            layers = [n for n, v in vars(module).items() if _is_layer(v) and v is not PythonLayer]
            message = f"{who}module '{spec.module}' has no class '{spec.cls}'"
            raise SpecError(message, spec.cls_span, did_you_mean(spec.cls, layers))
        if not _is_layer(found):
            message = f"{who}'{spec.cls}' of module '{spec.module}' is not derived from caffe.Layer"
            hint = f"class {spec.cls}(netdef.PythonLayer):"
            raise SpecError(message, spec.cls_span, hint)
        return found  # type: ignore[no-any-return]

    def _module(self, spec: HostSpec, who: str) -> ModuleType:
        name = spec.module
        self._forget_other(name)
        importlib.invalidate_caches()  # the file may have been written just now
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # One that the module itself asks for is the module's mistake.
            if error.name is None or not (name + ".").startswith(error.name + "."):
                raise
            place = f"{self.folder} and " if self.folder is not None else ""
            hint = f"it is looked for in {place}on Python's path (PYTHONPATH)"
            message = f"{who}there is no Python module '{name}'"
            raise SpecError(message, spec.module_span, hint) from None
        except (ValueError, TypeError) as error:
            if name and not name.startswith("."):
                raise
            message = f"{who}'{name}' is not the name of a module: {error}"
            raise SpecError(message, spec.module_span) from None

    def _forget_other(self, name: str) -> None:
        """Lets a module in the net's folder be found where another of its name has been loaded."""
        loaded = sys.modules.get(name)
        file = self.folder / f"{name}.py" if self.folder is not None else None
        if loaded is None or file is None or not file.is_file():
            return
        if Path(getattr(loaded, "__file__", None) or "").resolve() != file.resolve():
            del sys.modules[name]


def _is_layer(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, PythonLayer)
