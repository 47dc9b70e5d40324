"""Django made ready for the tests of a suite, as the project's own test runner does it.

Runs inside the box: settings, applications, the test environment and the databases, which must be
of a kind that needs no server. Tests are then run one by one, each as a suite of its own.
"""

from __future__ import annotations

import inspect
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

_SETTINGS = re.compile(r"""["']DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""")
_OWN = "runtests.py"


def make_ready(
    folder: str, script: str, text: str, tests: Iterable[str], load: Callable[[str], ModuleType]
) -> None:
    """``script`` is the path of a project's ``manage.py``, whose ``text`` names the settings, or of
    the ``runtests.py`` of Django itself, which ``load`` gives as a module; ``tests`` are paths."""
    top = os.path.dirname(f"{folder}/{script}")  # noqa: PTH120
    sys.path.insert(0, top)
    os.chdir(top)
    if os.path.basename(script) == _OWN:  # noqa: PTH119
        os.environ["DJANGO_SETTINGS_MODULE"] = "test_sqlite"
        below = script.removesuffix(_OWN)
        _set_up_own(load(script), sorted({t.removeprefix(below).split("/")[0] for t in tests}))
    else:
        named = _SETTINGS.search(text)
        if not named:
            raise LookupError(f"{script} names no settings")
        os.environ["DJANGO_SETTINGS_MODULE"] = named[1]
        __import__("django").setup()
    from django.conf import settings  # type: ignore[import-not-found]
    from django.test.utils import get_runner  # type: ignore[import-not-found]

    runner = get_runner(settings)(verbosity=0, interactive=False)
    runner.setup_test_environment()
    runner.setup_databases()


def _set_up_own(module: ModuleType, labels: list[str]) -> None:
    """What ``runtests.py`` does before it runs tests: its functions changed from version to
    version, the names of their parameters did not."""
    set_up = getattr(module, "setup_run_tests", None) or module.setup
    known = {"verbosity": 0, "test_labels": labels, "parallel": 1}
    known |= {"start_at": None, "start_after": None}
    set_up(**{name: known[name] for name in inspect.signature(set_up).parameters})
