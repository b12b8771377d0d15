from __future__ import annotations

import pickle

import pytest
import torch

from learner.optimisation.device_faults import DeviceFault, device_fault, telling_device_faults

RECORDED = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript (most recent call last):
RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.6 GiB.
"""


@pytest.mark.parametrize(
    ("error", "said", "helps"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "CUDA out of memory. Tried", True),
        (RuntimeError(RECORDED), "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0", True),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"),
            "CUDA error: CUBLAS",
            True,
        ),
        (MemoryError(), "out of memory", True),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), "CUDA error: device-side assert", False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "CUDNN_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_faults_of_the_device(error: Exception, said: str, helps: bool) -> None:
    fault = pickle.loads(pickle.dumps(device_fault(error)))
    assert isinstance(fault, DeviceFault)
    assert str(fault).startswith(said)
    assert "\n" not in str(fault)
    assert fault.remedy.startswith("lower --batch-size") == helps


def test_memory_of_a_cpu_that_is_not_there() -> None:
    with pytest.raises(DeviceFault, match="can't allocate memory: you tried to allocate"), telling_device_faults():
        torch.empty(10**15)


def test_a_mistake_in_a_loss_is_no_fault_of_the_device() -> None:
    with pytest.raises(RuntimeError, match="size of tensor") as raised, telling_device_faults():
        torch.zeros(2) + torch.zeros(3)
    assert not isinstance(raised.value, DeviceFault)
    assert device_fault(KeyError("CUDA error")) is None
