"""Options and fixtures that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler import reuse, tilings
from compiler.cache import Cache

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")


@pytest.fixture(autouse=True, scope="session")
def no_kept_programs():
    """Every test runs the passes: none reads what another test left."""
    reuse.PROGRAMS = Cache(None)


@pytest.fixture(autouse=True, scope="session")
def no_kept_tilings():
    """Every test has the model's tilings: none finds what the user's searches found."""
    tilings.FOLDER = None


@pytest.fixture
def golden(request):
    """Compares text with tests/golden/NAME, or writes it under --update-golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no golden file {name}: run pytest --update-golden and read it"
        assert text == path.read_text(), f"{name} changed: if meant, run pytest --update-golden"

    return check
