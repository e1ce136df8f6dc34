"""What a run uses of its machine (document 001)."""

from __future__ import annotations

from importlib.util import find_spec

import torch

__all__ = ["resource_usage"]

GIB = 1024**3


def resource_usage() -> dict[str, float]:
    """`cpu_percent` over 50 ms, `memory_used_gb` and `memory_percent` of the machine, where psutil is
    installed; `gpu_memory_allocated_gb` and `gpu_memory_reserved_gb` of this process, where there is a GPU."""
    found: dict[str, float] = {}
    if find_spec("psutil") is not None:
        import psutil

        memory = psutil.virtual_memory()
        found["cpu_percent"] = float(psutil.cpu_percent(interval=0.05))
        found["memory_used_gb"] = memory.used / GIB
        found["memory_percent"] = float(memory.percent)
    if torch.cuda.is_available():
        found["gpu_memory_allocated_gb"] = torch.cuda.memory_allocated() / GIB
        found["gpu_memory_reserved_gb"] = torch.cuda.memory_reserved() / GIB
    return found
