"""Ray's head: of a cluster of our own, or of the one that RAY_ADDRESS names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator

import grpc
import ray
from ray._common.network_utils import parse_address
from ray._common.utils import get_default_ray_temp_dir
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from palestra.deploy.jobs import TOKEN
from palestra.rl.errors import InfraError, PalestraError, UserError

OWN = "local"
"""The address that means a cluster of one's own to Ray."""
ANSWER_S = 15.0
"""How long a head that RAY_ADDRESS names may take to answer."""
ASK_S = 5.0
"""How long a connection to the head may take."""
EVERY_S = 5.0
MISSED = 6
"""A head that cannot be reached so often in a row, once in EVERY_S seconds, is lost. Half of the
minute after which Ray ends this process without a word; the rest is for an orderly end."""
SAID = 300
"""Characters of what Ray says that a line of ours repeats."""


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[bool]:
    """On the cluster named by RAY_ADDRESS, or on one that ends with this process; says whether it
    has a GPU.

    Raises UserError where it cannot be joined or started as things are set, and InfraError where
    it does not come up in time or its head is lost meanwhile.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _our_sigterm():
        address = os.environ.get("RAY_ADDRESS", OWN)
        _start() if address == OWN else _join(address)
    try:
        async with _while_it_is_there():
            yield ray.cluster_resources().get("GPU", 0) >= 1
    finally:
        if await is_there():
            ray.shutdown()


async def is_there() -> bool:
    """Whether the head of our cluster takes connections. Where it does not, Ray's calls wait for
    it until Ray ends this process."""
    if ray.util.client.ray.is_connected():
        return True  # a connection by RAY_ADDRESS=ray:// is looked after by Ray alone
    host, port = parse_address(ray.get_runtime_context().gcs_address)
    try:
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:  # a TimeoutError is one
        return False
    writer.close()
    return True


@contextlib.asynccontextmanager
async def _while_it_is_there() -> AsyncIterator[None]:
    """Ends what is done in this context when the head is lost."""
    try:
        async with asyncio.timeout(None) as life:
            watch = asyncio.create_task(_watch(life))
            try:
                yield
            finally:
                watch.cancel()
    except TimeoutError as error:
        if not life.expired():
            raise
        raise InfraError(
            "the head of the Ray cluster has gone, and did not come back within"
            f" {MISSED * EVERY_S:g} s; give the same command again, and the run goes on"
        ) from error


async def _watch(life: asyncio.Timeout) -> None:
    missed = 0
    while missed < MISSED:
        there, _ = await asyncio.gather(is_there(), asyncio.sleep(EVERY_S))
        missed = 0 if there else missed + 1
    life.reschedule(0)


def _join(address: str) -> None:
    _ensure_answers(address)
    try:
        ray.init(log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"RAY_ADDRESS {address}: no Ray cluster answers there") from error


def _ensure_answers(address: str) -> None:
    """Raise UserError unless a Ray head that lets us in answers at HOST:PORT: Ray itself would try
    for minutes. Addresses that Ray looks up elsewhere pass."""
    if address == "auto" or "://" in address:
        return
    with init_grpc_channel(address, GLOBAL_GRPC_OPTIONS) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=ANSWER_S)
        except grpc.RpcError as error:
            why = "no Ray cluster answers there"
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                why = "the cluster does not know our token; " + TOKEN
            raise UserError(f"RAY_ADDRESS {address}: {why}") from error


def _start() -> None:
    """A cluster of our own, which ends with this process."""
    # Its ports are open to the network, and whoever may use them runs code as us.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray.init(
            # Without it Ray joins whatever `ray start` has left running on this machine.
            address=OWN,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=512 << 20,
        )
    except Exception as error:  # Ray raises plain Exception, too
        raise _not_started(error) from error


def _not_started(error: Exception) -> PalestraError:
    """What to say for what Ray raised instead of starting."""
    said = " ".join(str(error).split())[:SAID].rstrip(" .")
    folder = get_default_ray_temp_dir()
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return UserError(
            f"Ray cannot work in {folder}: {said}; set RAY_TMPDIR to a short path of a folder that"
            " can be written and has room"
        )
    if isinstance(error, ValueError):
        return UserError(f"Ray does not take its settings: {said}")
    return InfraError(
        f"Ray did not come up: {said}; its logs are in {folder}/session_latest/logs. Where the"
        " machine is only too busy, give the same command again"
    )


@contextlib.contextmanager
def _our_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in place of ours, under which a run that is asked to end does
    so as a crash."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)
