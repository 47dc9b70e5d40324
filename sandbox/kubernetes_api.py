"""The API server as the rest of us sees it: calls off the event loop, faults in one vocabulary.

Objects are plain dictionaries in both directions. The official client signs and sends the requests;
its generated classes and its ``stream`` function, which turns every other call of a shared client
into a websocket while it runs, are not used.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from palestra.rl.errors import PalestraError

_T = TypeVar("_T")

_CONNECT_S, _ANSWER_S = 10.0, 30.0
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_PHRASES = {
    "exceeded quota": ("quota", "the namespace's ResourceQuota is used up"),
    "usage per": ("quota", "the namespace's LimitRange allows less"),
    "violates podsecurity": ("permission", "the namespace's Pod Security level forbids it"),
    "being terminated": ("start", "the namespace is being deleted"),
}
_STATUSES = {
    401: ("permission", "the API server does not know these credentials"),
    403: ("permission", "this account may not do that: see deploy/k8s/rbac.yaml"),
    404: ("start", "there is no such object"),
    429: ("queue", "the API server has too much to do: run fewer boxes at once"),
    503: ("queue", "the API server is overloaded or starting"),
    504: ("queue", "the API server did not finish in time"),
}


class ApiFault(PalestraError):
    """The API server refused, failed or could not be reached; ``status`` is that of HTTP, or 0
    where it is unknown whether something was done."""

    def __init__(self, stage: str, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.stage = stage
        self.status = status


class Api:
    """A namespace of the cluster that ``kubeconfig`` (empty: ``KUBECONFIG``, the usual file, or the
    service account we run under) and ``context`` name; at most ``workers`` calls run at once.

    ``namespace`` empty is the context's own. Raises ``ApiFault``.

    Example: ``await Api().call("GET", "pods", query={"limit": 1})``
    """

    def __init__(
        self, *, kubeconfig: str = "", context: str = "", namespace: str = "", workers: int = 16
    ) -> None:
        from kubernetes import client

        self._settings = client.Configuration()
        self._settings.connection_pool_maxsize = workers
        usual = _configured(self._settings, kubeconfig, context)
        self.namespace = namespace or usual
        self._client = client.ApiClient(self._settings)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="kubernetes")
        self.host = str(self._settings.host)

    async def call(
        self, method: str, path: str, body: object = None, *, query: Mapping[str, object] = {}
    ) -> dict[str, Any]:
        """``now`` in a thread of ours. A call that has begun goes on when we are cancelled."""
        return await self.run(partial(self.now, method, path, body, query=query))

    async def run(self, work: Callable[[], _T]) -> _T:
        """``work()`` in a thread of ours."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Queue ``work()`` for a thread of ours."""
        return self._pool.submit(work)

    def now(
        self, method: str, path: str, body: object = None, *, query: Mapping[str, object] = {}
    ) -> dict[str, Any]:
        """The object that the API server answers with; raises ``ApiFault``.

        ``path`` is below the namespace (``pods/NAME``), below it in a group
        (``coordination.k8s.io/v1:leases``), or begins with a slash. ``PATCH`` merges ``body``.
        """
        from urllib3.exceptions import HTTPError

        url = f"{self.host}{self.path(path)}" + (f"?{urlencode(query)}" if query else "")
        headers = self.headers() | {"Content-Type": "application/json"}
        if method == "PATCH":
            owners = isinstance(body, dict) and "ownerReferences" in body.get("metadata", {})
            headers["Content-Type"] = _STRATEGIC if owners else _MERGE
        try:
            answer = self._client.call_api(
                method, url, headers, body, _request_timeout=(_CONNECT_S, _ANSWER_S)
            )
            text = answer.read()
        # ValueError and OSError: files of a kubeconfig that are gone by now.
        except (HTTPError, OSError, ValueError) as error:
            raise ApiFault("start", f"no answer from {self.host}: {error}") from error
        if not 200 <= answer.status < 300:
            raise refused(answer.status, text)
        return dict(json.loads(text))

    def path(self, path: str) -> str:
        """The whole path of one below our namespace."""
        if path.startswith("/"):
            return path
        group, colon, rest = path.rpartition(":")
        root = f"/apis/{group}" if colon else "/api/v1"
        return f"{root}/namespaces/{self.namespace}/{rest}"

    def headers(self) -> dict[str, str]:
        """Who we are; blocks while credentials are renewed."""
        headers: dict[str, str] = {"Accept": "application/json"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
        return headers

    def websocket(self, path: str, query: Sequence[tuple[str, str]]) -> tuple[str, dict[str, Any]]:
        """Address and options for ``websockets.connect``."""
        address = self.host.replace("http", "ws", 1) + self.path(path) + "?" + urlencode(query)
        headers = {name: text for name, text in self.headers().items() if name != "Accept"}
        options: dict[str, Any] = {"additional_headers": headers, "proxy": self.proxy}
        if address.startswith("wss"):
            options["ssl"] = self.tls
            if self._settings.tls_server_name:
                options["server_hostname"] = self._settings.tls_server_name
        return address, options

    @cached_property
    def proxy(self) -> str | None:
        """What to go through to the API server, if anything."""
        from kubernetes.client.rest import should_bypass_proxies

        direct = should_bypass_proxies(self.host, self._settings.no_proxy or "")
        return None if direct else self._settings.proxy

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Whom we trust to be the API server, and our certificate."""
        given = self._settings
        context = ssl.create_default_context(cafile=given.ssl_ca_cert or None)
        if given.cert_file:
            context.load_cert_chain(given.cert_file, given.key_file)
        if not given.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif given.assert_hostname is False:
            context.check_hostname = False
        return context


def refused(status: int, text: bytes | str) -> ApiFault:
    """What an answer other than 2xx means, in our words and the server's."""
    try:
        said = str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        said = text.decode(errors="replace") if isinstance(text, bytes) else text
    said = " ".join(said.split())[:500]
    for phrase, (stage, ours) in _PHRASES.items():
        if phrase in said.lower():
            return ApiFault(stage, f"{ours} ({said})", status)
    stage, ours = _STATUSES.get(status, ("start", f"status {status}"))
    return ApiFault(stage, f"{ours} ({said})", status)


def _configured(settings: Any, kubeconfig: str, context: str) -> str:
    """Fill ``settings`` and return the namespace that goes with them."""
    from kubernetes import config

    file = kubeconfig or os.environ.get("KUBECONFIG") or None
    try:
        if file or context or not _ACCOUNT.exists():
            config.load_kube_config(file, context or None, client_configuration=settings)
            contexts, active = config.list_kube_config_contexts(file)
            chosen = next((one for one in contexts if one["name"] == context), active)
            return str(chosen["context"].get("namespace") or "default")
        config.load_incluster_config(client_configuration=settings)
        return _ACCOUNT.read_text().strip()
    except (config.ConfigException, OSError) as error:
        raise ApiFault("start", f"no cluster: set KUBECONFIG ({error})") from error
