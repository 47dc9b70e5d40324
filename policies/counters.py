"""What the process it is called in knows about itself and its device: the input of the guards."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def device_id() -> str:
    """The physical GPU, or the host: what two processes must share to hand over tensors."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    return f"cpu of {platform.node()}"


def environment() -> dict[str, str]:
    """The variables that both sides are compared by."""
    names = ("VLLM_ALLOW_INSECURE_SERIALIZATION", "NCCL_CUMEM_ENABLE")
    return {name: os.environ[name] for name in names if name in os.environ}


def host() -> dict[str, int]:
    """Resident memory in bytes, open files, child processes."""
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    children = [p.read_text().split() for p in Path("/proc/self/task").glob("*/children")]
    return {
        "rss_bytes": resident * os.sysconf("SC_PAGE_SIZE"),
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "children": sum(map(len, children)),
    }


def device_used() -> dict[str, int]:
    """Bytes in use on the whole GPU, by all its processes; empty on CPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"device_bytes": total - free}


def allocator() -> dict[str, int]:
    """Bytes that torch keeps of the GPU, free ones included, and of pinned host memory; empty on
    CPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    pinned = torch.cuda.host_memory_stats()
    return {
        "reserved_bytes": torch.cuda.memory_reserved(),
        "pinned_bytes": int(pinned.get("allocated_bytes.current", 0)),
    }


def allocated() -> int | None:
    """Bytes of the GPU in this process's tensors; None on CPU."""
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else None
