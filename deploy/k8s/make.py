"""Writes the manifests of this folder, and the boxes' part of its chart, from
``sandbox/kubernetes_cluster.py``.

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
TEMPLATE = FOLDER / "chart/templates/boxes.yaml"
EXPRESSIONS = {
    "namespace-of-boxes": "{{ .Values.boxes.namespace }}",
    "namespace-of-the-driver": "{{ .Release.Namespace }}",
    "registry.example/image-of-boxes": "{{ .Values.boxes.image }}",
}
"""What the chart has in the place of names: all are texts that need no quotes in YAML."""


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
        name: HEAD + dumped(manifests)
        for name, manifests in files(namespace, image=image, boxes=boxes).items()
    }


def template() -> str:
    """The chart's template of all that but the quota, which it computes by itself."""
    boxes, home, image = EXPRESSIONS
    found = files(boxes, image=image, boxes=1, home=home).values()
    text = dumped([one for some in found for one in some if one["kind"] != "ResourceQuota"])
    for name, expression in EXPRESSIONS.items():
        text = text.replace(name, expression)
    return "# Written by deploy/k8s/make.py.\n" + text


def dumped(manifests: list[dict[str, Any]]) -> str:
    """As YAML."""
    return str(yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False))


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--image", default=IMAGE, help="for the boxes, and any with python3")
    parser.add_argument("--boxes", type=int, default=BOXES, help="how many at once")
    given = parser.parse_args()
    for name, text in pages(given.namespace, given.image, given.boxes).items():
        (FOLDER / name).write_text(text)
    TEMPLATE.write_text(template())


if __name__ == "__main__":
    main()
