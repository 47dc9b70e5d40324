"""A folder put in the place of another one, such that a crash never leaves neither."""

from __future__ import annotations

import shutil
from pathlib import Path


def replace_folder(new: Path, target: Path) -> None:
    """Rename the complete folder ``new`` to ``target``, whatever stands there.

    A folder cannot be renamed over a full one, so the previous one is called ``TARGET.old`` in
    between. A crash leaves ``target`` whole, or nothing there and ``TARGET.old`` whole:
    ``rl.train.restore`` gives it its name back. Raises ``OSError`` with the previous one in place.
    """
    old = target.with_name(target.name + ".old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
