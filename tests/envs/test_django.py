"""Tests of Django projects are found by unittest's names, and run where Django was made ready.

The Django here is a stand-in with the names that our runner asks for, strict about their order;
``bench/django_suite.py`` does the same with the real one and its own tests.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from palestra.envs.check import check_tasks
from palestra.envs.django_tests import django_script
from palestra.envs.rows import BadRow
from palestra.envs.sources import load
from palestra.envs.swebench_rows import Finder
from palestra.envs.task_json import task_from_json, task_to_json
from palestra.rl.types import CheckJob, File, SuiteCheck
from palestra.sandbox import auto
from palestra.sandbox.checks import Fresh, make_grader, run_checks

MANAGE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n'
DJANGO = {
    "django/__init__.py": """
done = []
def setup():
    from django.conf import settings
    assert not done and settings.CURRENCY == "EUR"
    done.append("setup")
""",
    "django/conf.py": """
import importlib, os
settings = importlib.import_module(os.environ["DJANGO_SETTINGS_MODULE"])
""",
    "django/test/__init__.py": """
import unittest, django
class TestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        assert django.done == ["setup", "environment", "databases"], django.done
""",
    "django/test/utils.py": """
import django
def get_runner(settings):
    assert django.done == ["setup"] and settings.CURRENCY
    return Runner
class Runner:
    def __init__(self, *, verbosity, interactive): assert not verbosity and not interactive
    def setup_test_environment(self): django.done.append("environment")
    def setup_databases(self): django.done.append("databases")
""",
}
TESTS = """\
from django.test import TestCase
from shop.price import price

class PriceTest(TestCase):
    def test_price(self):
        self.assertEqual(price(2), "4 EUR")

    def test_none(self):
        \"\"\"
        Nothing costs nothing.

        It is free.
        \"\"\"
        self.assertEqual(price(0), "0 EUR")
"""
PROJECT = {
    "site/manage.py": MANAGE,
    "site/shop/__init__.py": "",
    "site/shop/settings.py": 'CURRENCY = "EUR"\n',
    "site/shop/price.py": "from django.conf import settings\n\n"
    "def price(n):\n    return f'{n} {settings.CURRENCY}'\n",
    "site/shop/tests.py": "",
    **{f"site/{path}": text for path, text in DJANGO.items()},
}


def test_names_of_unittest_become_ids() -> None:
    changed = {"tests/shop/tests.py": TESTS, "tests/shop/data.json": "{"}
    others = ["tests/shop/tests.py", "tests/shop/models.py", "tests/till/tests.py", "x/a/till.py"]
    case = "tests/shop/tests.py::PriceTest"
    for said, wanted in (
        ("test_price (shop.tests.PriceTest)", [f"{case}::test_price"]),
        ("test_price (shop.tests.PriceTest.test_price)", [f"{case}::test_price"]),
        ("Nothing costs nothing.", [f"{case}::test_none"]),
        ("test_open (till.tests.TillTest)", ["tests/till/tests.py::TillTest::test_open"]),
    ):
        assert Finder(changed, others).ids(said) == wanted
    both = {**changed, "tests/till/tests.py": TESTS}
    assert len(Finder(both, others).ids("Nothing costs nothing.")) == 2  # both must pass
    for said in (
        "It is free.",
        "test_open (bank.tests.TillTest)",
        "test_price (tests.PriceTest)",
    ):
        with pytest.raises(BadRow, match="no test of pytest"):
            Finder(both, [*others, *both]).ids(said)


def test_what_runs_the_tests_of_a_project() -> None:
    script, other = File(data=MANAGE.encode()), File(data=b"")
    files = {"site/manage.py": script, "site/old/manage.py": other, "manage.py": other}
    assert django_script(files, ["site/shop/tests.py"]) == "site/manage.py"
    assert django_script(files, ["site/shop/tests.py", "tests/test_a.py"]) == ""
    assert django_script({**files, "manage.py": script}, ["tests/test_a.py"]) == "manage.py"
    own = {"tests/runtests.py": other, "django/test/runner.py": other}
    assert django_script(own, ["tests/shop/tests.py"]) == "tests/runtests.py"


def test_a_row_of_a_django_project_is_graded(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *who, *words]
        return subprocess.run(command, cwd=repo, check=True, capture_output=True, text=True).stdout

    repo = tmp_path / "shop"
    for path, text in PROJECT.items():
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).write_text(text)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "broken"]):
        git(*words)
    (repo / "site/shop/tests.py").write_text(TESTS)
    test_patch = git("diff")
    git("checkout", "-q", ".")
    (repo / "site/shop/price.py").write_text(
        PROJECT["site/shop/price.py"].replace("{n}", "{2 * n}")
    )
    row = {
        "instance_id": "acme__shop-1",
        "repo": "acme/shop",
        "base_commit": "HEAD",
        "problem_statement": "half the price",
        "patch": git("diff"),
        "test_patch": test_patch,
        "FAIL_TO_PASS": ["test_price (shop.tests.PriceTest)"],
        "PASS_TO_PASS": ["Nothing costs nothing."],
    }
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (tmp_path / "swebench.toml").write_text('[repositories."acme/shop"]\npath = "shop"\n')
    boxes = auto.choose(root=tmp_path / "boxes")
    source = f"swebench:{tmp_path / 'rows.json'}"
    tasks = asyncio.run(load(source, run_checks=run_checks, provider=boxes, seed=0))
    (task,) = tasks.tasks
    assert set(task.test_files) == {"site/manage.py", "site/shop/tests.py"}
    assert task_from_json(task_to_json(task)).hidden == task.hidden
    assert asyncio.run(check_tasks(tasks, make_grader(boxes), repeats=1)).sound


def test_a_project_that_cannot_be_set_up_says_why(tmp_path: Path) -> None:
    check = SuiteCheck(id="site/shop/tests.py::PriceTest::test_price", django="site/manage.py")
    job = CheckJob(
        files={},
        checks=(check,),
        test_files={"site/shop/tests.py": TESTS, "site/manage.py": MANAGE.replace("shop", "gone")},
        tree={path: File(data=text.encode()) for path, text in PROJECT.items()},
    )
    [[result]] = asyncio.run(Fresh(auto.choose(root=tmp_path)).run([job], timeout=60))
    assert not result.passed and result.got == "ModuleNotFoundError: No module named 'gone'"
