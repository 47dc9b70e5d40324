"""The boxes in a namespace, whoever made them: listing and removing, without making any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from palestra.sandbox.base import CreateError, Found, TransportError
from palestra.sandbox.kubernetes_api import Api, ApiFault
from palestra.sandbox.kubernetes_life import Pods


class KubernetesKeeper:
    """Knows the boxes of one namespace; see ``kubernetes_api.Api`` for how it is found. Raises
    ``CreateError`` when there is no cluster.

    Example: ``await reap(KubernetesKeeper(namespace="palestra"), {"run": "tiny-0"})``
    """

    def __init__(
        self, *, kubeconfig: str = "", context: str = "", namespace: str = "", workers: int = 16
    ) -> None:
        try:
            self.api = Api(
                kubeconfig=kubeconfig, context=context, namespace=namespace, workers=workers
            )
        except ApiFault as fault:
            raise CreateError(fault.stage, str(fault)) from fault
        self.pods = Pods(self.api)

    async def list(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """The boxes of this namespace that carry all of ``labels``; raises ``TransportError``."""
        try:
            return await self.api.run(partial(self.pods.listed, labels))
        except ApiFault as fault:
            raise TransportError(f"kubernetes: {fault}") from fault

    async def remove(self, name: str) -> None:
        """Remove a box, and the Lease of its driver if that is dead; harmless when it is gone.
        Raises ``TransportError``."""
        await self.pods.removed(name)
