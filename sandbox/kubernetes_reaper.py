"""Removes the Leases of drivers that no longer renew them; the cluster removes their boxes then.

The text of this file is the program of a CronJob (``kubernetes_cluster.reaper``), in any image with
a ``python3``: standard library only. Without a cluster around it, it takes the address of an API
server, a file with a token and one with certificates from ``API``, ``TOKEN`` and ``CERTIFICATES``.
"""

import json
import os
import ssl
import sys
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
GRACE_S = 120


def call(method: str, path: str) -> dict:  # type: ignore[type-arg]
    """One request to the API server; raises ``OSError``."""
    host = os.environ.get("API", "https://kubernetes.default.svc")
    token = Path(os.environ.get("TOKEN", f"{FOLDER}/token")).read_text().strip()
    tls = ssl.create_default_context(cafile=os.environ.get("CERTIFICATES", f"{FOLDER}/ca.crt"))
    request = urllib.request.Request(host + path, method=method)
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, context=tls, timeout=30) as answer:
        return dict(json.load(answer))


def silence(lease: dict) -> float:  # type: ignore[type-arg]
    """Seconds since a Lease should have been renewed; below 0 while its time is not over."""
    spec = lease["spec"]
    renewed = datetime.fromisoformat(spec["renewTime"].replace("Z", "+00:00"))
    # Not datetime.UTC, which Python 3.11 was the first to have.
    now = datetime.now(timezone.utc)  # noqa: UP017
    age: float = (now - renewed).total_seconds()
    return age - float(spec["leaseDurationSeconds"])


def main(namespace: str) -> None:
    """Remove the stale ones and say which; the exit code is 1 when one could not be removed."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    problems = 0
    for lease in call("GET", f"{path}?labelSelector=palestra/driver")["items"]:
        if silence(lease) > GRACE_S:
            name = lease["metadata"]["name"]
            try:
                call("DELETE", f"{path}/{name}")
                sys.stdout.write(f"{name}\n")
            except OSError as error:
                problems += 1
                sys.stderr.write(f"{name}: {error}\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(sys.argv[1])
