"""What CudaDevice says of a program, a driver or a GPU that it cannot use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.cuda import CudaDevice, require_fit, usable_gpu
from schemas.errors import BackendError
from schemas.program import KernelInfo
from tests.gpu.handles import Status
from tests.runtime.cuda_programs import program


@pytest.mark.parametrize(
    ("target", "gpu", "fits"),
    [
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_90", (9, 0), True),
        ("sm_80", (9, 0), False),
        ("sm_100", (10, 3), False),
        ("gfx942", (9, 0), False),
    ],
)
def test_programs_fit_their_gpu_only(target, gpu, fits):
    if fits:
        require_fit(program(target), gpu)
        return
    with pytest.raises(BackendError) as error:
        require_fit(program(target), gpu)
    assert error.value.hint


def test_source_only():
    with pytest.raises(BackendError, match="source only"):
        require_fit(program(code={}), (9, 0))


def test_errors_in_plain_words(api):
    with pytest.raises(BackendError, match="there is no NVIDIA GPU in this machine"):
        CudaDevice(1, api)
    api.limit = 100
    with pytest.raises(BackendError, match="not enough free memory") as error:
        CudaDevice(0, api).load(program())
    assert error.value.hint.startswith("use a smaller batch_size")
    api.limit = 500  # enough for what comes before the arena
    slots = program().slots
    with pytest.raises(BackendError, match="not enough free memory"):
        CudaDevice(0, api).load(program(slots=(*slots[1:], slots[0])))
    assert not api.unreleased()
    api.limit = 1 << 30
    executable = CudaDevice(0, api).load(program())
    api.fail["cuLaunchKernelEx"] = Status.CUDA_ERROR_NO_DEVICE
    with pytest.raises(BackendError):
        executable.run()
    del api.fail["cuLaunchKernelEx"]
    executable.run()  # the stream can be used again


def test_an_error_says_which_launch_it_is_about(api):
    kernel = KernelInfo("conv1", "contract", ("conv1", "relu1"), (), 0, 0)
    launch = replace(program().launches[0], kernels=(kernel,))
    executable = CudaDevice(0, api).load(program(launches=(launch,)))
    api.fail["cuLaunchKernelEx"] = Status.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(BackendError) as error:
        executable.run()
    message = "launch 'step' of conv1, relu1: the NVIDIA driver reports CUDA_ERROR_INVALID_VALUE"
    assert message in str(error.value)
    assert "it has grid [1, 1, 1], threads 128, shared 70000" in str(error.value)
    executable.close()
    api.fail["cuFuncSetAttribute"] = Status.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(BackendError, match="launch 'step' of conv1, relu1: .*cuFuncSetAttribute"):
        CudaDevice(0, api).load(program(launches=(launch,)))


def test_a_capture_that_failed_hides_no_error(api):
    """A driver refuses to end a capture that a launch has spoilt."""
    executable = CudaDevice(0, api).load(program())
    api.fail["cuLaunchKernelEx"] = Status.CUDA_ERROR_NO_DEVICE
    api.fail["cuStreamEndCapture"] = Status.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(BackendError, match="there is no NVIDIA GPU"):
        executable.run()


def test_usable_gpu_never_raises():
    assert usable_gpu() is None or usable_gpu().startswith("sm_")


def test_no_driver():
    class Missing:
        def cuInit(self, flags):
            raise RuntimeError("Failed to dlopen libcuda.so.1")

    with pytest.raises(BackendError, match="no NVIDIA driver is installed"):
        CudaDevice(0, Missing())


def test_a_driver_that_lacks_a_function(api, monkeypatch):
    def missing(*args):
        raise RuntimeError('Function "cuLaunchKernelEx" not found')

    monkeypatch.setattr(api, "cuLaunchKernelEx", missing, raising=False)
    with pytest.raises(BackendError, match='driver is too old .*"cuLaunchKernelEx" not found'):
        CudaDevice(0, api).load(program()).run()
