"""Which boxes a run uses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from palestra.rl.settings import Settings


class SandboxConfig(Settings):
    """Backend and limits of the boxes."""

    backend: Literal["auto", "bubblewrap", "landlock", "docker"] = "auto"
    """`auto` takes the strongest that works on this machine without containers."""
    image: str = ""
    """Container image of the boxes, best by digest; needs `python3` 3.9 or newer inside."""
    pull: Literal["never", "missing"] = "never"
    """Whether an image that the daemon lacks is pulled."""
    mirrors: dict[str, str] = {}
    """Prefixes of image names and what to put in their place when images are looked up or pulled:
    `{"docker.io" = "mirror.example/hub"}`."""
    require: list[str] = ["fs", "no_net", "kill_tree"]
    """Guarantees without which the run does not start."""
    max_boxes: int = Field(default=4, ge=1)
    """Commands running in boxes at once."""
    check_s: float = Field(default=2.0, gt=0)
    """Processor seconds of one check before it counts as failed; functions that take microseconds
    deserve less, because a candidate that loops for ever uses it up."""
