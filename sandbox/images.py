"""Names of container images: pure functions that every backend with images shares."""

from __future__ import annotations

from collections.abc import Mapping

_HUB = "docker.io"


def full_name(image: str) -> str:
    """An image with its registry spelled out.

    Example: ``full_name("python:3.12") == "docker.io/library/python:3.12"``
    """
    first, slash, _ = image.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return image
    return f"{_HUB}/{image}" if slash else f"{_HUB}/library/{image}"


def mirrored(image: str, mirrors: Mapping[str, str]) -> str:
    """The name to fetch ``image`` by: the longest prefix in ``mirrors`` is replaced by its value.

    A name that no mirror is for stays as it is, and so do ids (``sha256:...``).

    Example: ``mirrored("python:3.12", {"docker.io": "mirror.example/hub"}) ==
    "mirror.example/hub/library/python:3.12"``
    """
    if image.startswith("sha256:"):
        return image
    name = full_name(image)
    fitting = [prefix for prefix in mirrors if name.startswith(prefix.rstrip("/") + "/")]
    if not fitting:
        return image
    prefix = max(fitting, key=len)
    return mirrors[prefix].rstrip("/") + name[len(prefix.rstrip("/")) :]
