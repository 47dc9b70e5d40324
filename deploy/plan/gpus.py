"""GPUs by name, as their makers' data sheets give them."""

from __future__ import annotations

from dataclasses import dataclass

from palestra.rl.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Memory in GiB; bandwidth of the memory, and of the links to its neighbours in one direction,
    in GB/s.

    Example: ``Gpu(name="h100", gib=80.0, memory_gbs=3350, link_gbs=450)``
    """

    name: str
    gib: float
    memory_gbs: float
    link_gbs: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="l40s", gib=44.7, memory_gbs=864, link_gbs=32),
        Gpu(name="a100", gib=79.2, memory_gbs=2039, link_gbs=300),
        Gpu(name="h100", gib=79.2, memory_gbs=3350, link_gbs=450),
        Gpu(name="h200", gib=139.8, memory_gbs=4800, link_gbs=450),
        Gpu(name="b200", gib=178.0, memory_gbs=8000, link_gbs=900),
    )
}


def gpu_named(name: str) -> Gpu:
    """Raises ``UserError`` for a GPU that is not in the table."""
    if name not in GPUS:
        raise UserError(f"--gpu {name}: not one of {', '.join(GPUS)}")
    return GPUS[name]
