"""What several tests of devices start from."""

from __future__ import annotations

import pytest

from tests.gpu.fake_driver import FakeDriver
from tests.gpu.handles import Kernel
from tests.runtime.cuda_programs import step


@pytest.fixture
def api() -> FakeDriver:
    fake = FakeDriver()
    fake.kernels["step"] = Kernel(step, 4)
    return fake
