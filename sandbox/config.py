"""Which boxes a run uses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from palestra.rl.settings import Settings


class DockerConfig(Settings):
    """Which Docker daemon, and how much of it."""

    host: str = ""
    """Address of the daemon; empty: `DOCKER_HOST`, or the usual socket."""
    cpus: float = Field(default=1.0, gt=0)
    """Processors that one box may use."""
    runtime: str = ""
    """OCI runtime of the boxes, such as `runsc`; empty: the daemon's own."""
    workers: int = Field(default=16, ge=1)
    """Calls of the daemon that run at once, such as boxes being made."""
    pulls: int = Field(default=2, ge=1)
    """Images that are pulled at once."""
    pull_s: float = Field(default=600.0, gt=0)
    """Seconds that an image has to arrive, waiting for others included."""


class KubernetesConfig(Settings):
    """Which cluster, and where in it; an empty value leaves the choice to the cluster."""

    kubeconfig: str = ""
    """File that says how to reach the cluster; empty: `KUBECONFIG`, the usual file, or the account
    of the Pod that the driver runs in."""
    context: str = ""
    """Context of that file."""
    namespace: str = ""
    """Namespace of the boxes; empty: the context's own."""
    runtime: str = ""
    """RuntimeClass of the boxes, such as `gvisor`."""
    account: str = ""
    """Service account of the boxes; they never get its token."""
    priority: str = ""
    """PriorityClass of the boxes."""
    cpus: float = Field(default=1.0, gt=0)
    """Processors that one box may use."""
    reserve: float = Field(default=1.0, ge=0, le=1)
    """Share of them that its node keeps for it alone; less puts more boxes on a node."""
    machine: str = ""
    """Architecture of the nodes, `x86_64` or `aarch64`; empty: that of the driver."""
    schedule_s: float = Field(default=120.0, gt=0)
    """Seconds that a box waits for a node."""
    start_s: float = Field(default=180.0, gt=0)
    """Seconds that it then has for its image and its start."""
    transport: Literal["auto", "direct", "proxy", "websocket"] = "auto"
    """How boxes are reached: by HTTP at the address of their Pod (`direct`) or through the API
    server (`proxy`), or over websockets of the API server; `auto` takes the first that works."""
    warm: int = Field(default=0, ge=0)
    """Boxes of the image and the usual limits that agent-sandbox keeps ready, where the cluster has
    it; 0: none. Nothing bounds the processes of such a box but its node."""
    claim_s: float = Field(default=60.0, gt=0)
    """Seconds in which such a box is there once it is asked for."""


class PoolConfig(Settings):
    """Boxes kept ready for training and evaluation, and how long each part of a box's life may
    take. Seconds that the backend allows itself hold as well."""

    spare: int = Field(default=16, ge=0)
    """Fresh boxes that wait to be used, where boxes are containers; others are made at once."""
    places: int = Field(default=0, ge=0)
    """Boxes that exist at once, spare ones and those being made or removed included; 0: what
    `rollout.max_in_flight`, `sandbox.max_boxes` and `spare` add up to."""
    creating: int = Field(default=8, ge=1)
    """Boxes that are made at once."""
    queue_s: float = Field(default=1800.0, gt=0)
    """Seconds that an episode waits until a box is free or one is begun for it."""
    create_s: float = Field(default=600.0, gt=0)
    """Seconds that making a box may take."""
    ready_s: float = Field(default=30.0, gt=0)
    """Seconds in which a box that was made has to answer."""
    close_s: float = Field(default=60.0, gt=0)
    """Seconds that removing a box may take."""
    shelf_s: float = Field(default=600.0, gt=0)
    """Seconds after which a spare box is replaced; its time to live is longer by as much."""
    retries: int = Field(default=2, ge=0)
    """How often making or removing a box is tried again, unless that cannot help."""
    failures: int = Field(default=16, ge=1)
    """Boxes in a row that could not be made before the run ends."""
    reuse: bool = False
    """Whether a used box is emptied, compared with a fresh one and used again; only bubblewrap
    boxes with cgroups can be."""


class SandboxConfig(Settings):
    """Backend and limits of the boxes."""

    backend: Literal["auto", "bubblewrap", "landlock", "docker", "kubernetes"] = "auto"
    """`auto` takes the strongest that works on this machine without containers."""
    image: str = ""
    """Container image of the boxes, best by digest; needs `python3` 3.9 or newer inside."""
    pull: Literal["never", "missing"] = "never"
    """Whether an image that the daemon or the node lacks is pulled."""
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
    pool: PoolConfig = PoolConfig()
    """Boxes kept ready."""
    docker: DockerConfig = DockerConfig()
    """For `backend = "docker"`."""
    kubernetes: KubernetesConfig = KubernetesConfig()
    """For `backend = "kubernetes"`."""
