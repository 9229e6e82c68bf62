"""Memory of the process, as the C library manages it."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>


def keep_freed_memory(device_type: str) -> None:
    """Make the process keep freed memory for later use, if it computes on a CPU.

    A training step on a CPU frees and allocates some gigabytes in large tensors. By default glibc
    returns each of them to the kernel, which must clear the pages of the next one: this takes a
    fifth of a step's time. The setting is global and cannot be undone, so that programs call this
    function and libraries do not. It has no effect without glibc.

    Args:
        device_type: "cpu" or "cuda".
    """
    if device_type != "cpu" or sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
