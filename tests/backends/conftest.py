"""What several tests of backends start from."""

from __future__ import annotations

import pytest

from runtime.triton_interpreter import InterpreterDevice


@pytest.fixture(scope="module")
def device():
    device = InterpreterDevice()
    yield device
    device.close()
