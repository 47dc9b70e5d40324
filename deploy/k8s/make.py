"""Writes the manifests of this folder from ``sandbox/kubernetes_cluster.py``.

.venv/bin/python deploy/k8s/make.py --namespace palestra --image python:3.12-slim --boxes 64
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from palestra.sandbox.kubernetes_cluster import files

FOLDER = Path(__file__).parent
NAMESPACE, IMAGE, BOXES = "palestra", "python:3.12-slim", 64
HEAD = "# Written by deploy/k8s/make.py; run it again for another namespace, image or size.\n"


class Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines as they are, and no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: Dumper, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)


def pages(namespace: str = NAMESPACE, image: str = IMAGE, boxes: int = BOXES) -> dict[str, str]:
    """The text of every file of this folder by its name."""
    return {
        name: HEAD + yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False)
        for name, manifests in files(namespace, image=image, boxes=boxes).items()
    }


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--image", default=IMAGE, help="for the boxes, and any with python3")
    parser.add_argument("--boxes", type=int, default=BOXES, help="how many at once")
    given = parser.parse_args()
    for name, text in pages(given.namespace, given.image, given.boxes).items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
