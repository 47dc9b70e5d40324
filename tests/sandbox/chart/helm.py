"""Helm behind a pipe: values and a namespace as a line of JSON in, what it makes of them and the
chart as another out: the rendered files and the findings of its linter, or why it refuses.

In a process of its own: Helm is a Go library, whose runtime has signals and threads of its own.
"""

from __future__ import annotations

import json
import sys

import helm_python as helm


def main(path: str) -> None:
    """Answer until nobody asks any more."""
    with helm.Chart.load(path) as chart:
        for line in sys.stdin:
            values, namespace = json.loads(line)
            try:
                chart.validate_schema(values)
                files = chart.render(values, name="demo", namespace=namespace)
                found = helm.lint(path, values, strict=True)["errors"]
                answer = {"files": files, "findings": found}
            except helm.HelmError as error:
                answer = {"error": str(error)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
