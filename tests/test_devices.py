"""Tensors on devices that this machine may lack: objects whose DLPack exchange table claims them."""

import ctypes

import pytest
import torch

import warpdraw

CPU, CUDA, ROCM = 1, 2, 10
NAMES = {CPU: "cpu", CUDA: "cuda:{}", ROCM: "device type 10:{}"}
FLOAT = 2
POINTER = ctypes.c_void_p
BORROW = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, POINTER)


class Borrowed(ctypes.Structure):
    """dlpack::Tensor of csrc/python/dlpack_abi.h."""

    _fields_ = (
        ("data", POINTER),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", POINTER),
        ("strides", POINTER),
        ("byte_offset", ctypes.c_uint64),
    )


class Exchange(ctypes.Structure):
    """dlpack::Exchange, of which checks only borrow."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", POINTER),
        ("allocate", POINTER),
        ("to_managed", POINTER),
        ("to_object", POINTER),
        ("borrow", BORROW),
        ("current_stream", POINTER),
    )


@BORROW
def borrow(tensor, out):
    ctypes.cast(out, ctypes.POINTER(Borrowed))[0] = tensor.borrowed
    return 0


TABLE, NAME = Exchange(1, 0, borrow=borrow), b"dlpack_exchange_api"  # a capsule borrows both
capsule = ctypes.pythonapi.PyCapsule_New
capsule.restype, capsule.argtypes = ctypes.py_object, (POINTER, ctypes.c_char_p, POINTER)


class Elsewhere:
    """Float32 zeros that say that they are on another device."""

    __dlpack_c_exchange_api__ = capsule(ctypes.addressof(TABLE), NAME, None)

    def __init__(self, device_type, device_id, *shape):
        self.zeros = torch.zeros(shape)
        self.sizes = (ctypes.c_int64 * len(shape))(*shape)
        self.steps = (ctypes.c_int64 * len(shape))(*self.zeros.stride())
        sizes, steps = ctypes.addressof(self.sizes), ctypes.addressof(self.steps)
        data = self.zeros.data_ptr()
        self.borrowed = Borrowed(data, device_type, device_id, len(shape), FLOAT, 32, 1, sizes, steps, 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [((CUDA, 0), (CPU, 0)), ((CPU, 0), (CUDA, 0)), ((CUDA, 0), (CUDA, 1)), ((ROCM, 0), (CUDA, 0))],
)
@pytest.mark.parametrize("backend", ["cpu", "scalar", "reference"])
def test_tensors_of_two_devices_are_refused_by_name(first, second, backend):
    logits, temperature = Elsewhere(*first, 2, 9), Elsewhere(*second, 2)
    here, there = (NAMES[kind].format(number) for kind, number in (first, second))
    message = f"^temperature: expected a tensor on {here} like logits, got one on {there}$"
    with warpdraw.use(backend), pytest.raises(ValueError, match=message):
        warpdraw.sample(logits, temperature=temperature)
    with pytest.raises(ValueError, match=message):
        warpdraw.sample(logits, temperature=temperature)


def test_an_output_on_another_device_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^out: expected a tensor on cpu like logits, got one on cuda:1$"):
        warpdraw.softmax(torch.zeros(2, 9), out=Elsewhere(CUDA, 1, 2, 9))
