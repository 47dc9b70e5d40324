"""Candidates that do not end, found cheaply before they are validated.

A mutated loop often runs for ever, and waiting for the check runner's time limit costs seconds
each. This screen counts executed lines instead of time, so its answer is the same on every
machine. It decides nothing about correctness: it runs in the box and believes the candidate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from palestra.rl.types import CallCheck, CheckJob, Sandbox

LINES = 20_000
NOT_ENDING = "not run: it does not end"

_SCRIPT = """
import ast, json, os, resource, signal, sys
report = int(os.environ["PALESTRA_REPORT_FD"])
fuel, jobs = json.loads(sys.stdin.buffer.read())
os.dup2(os.open("/dev/null", os.O_RDWR), 1)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
class Spent(BaseException): pass
left = 0
def trace(frame, event, argument):
    global left
    if frame.f_code.co_filename != "<candidate>":
        return None
    if event == "line":
        left -= 1
        if left < 0:
            raise Spent
    return trace
def stop(*_):
    raise Spent
signal.signal(signal.SIGVTALRM, stop)
def ends(files, calls):
    global left
    for module, function, arguments in calls:
        left = fuel
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.5, 0.5)
            code = compile(files[module + ".py"], "<candidate>", "exec")
            space = {"__name__": module}
            sys.settrace(trace)
            exec(code, space)
            space[function](*ast.literal_eval(arguments))
        except Spent:
            return False
        except BaseException:
            pass
        finally:
            sys.settrace(None)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return True
for number, (files, calls) in enumerate(jobs):
    try:
        if not ends(files, calls):
            os.write(report, b"%d\\n" % number)
    except BaseException:
        pass
"""


async def not_ending(jobs: Sequence[CheckJob], box: Sandbox) -> set[int]:
    """Numbers of the jobs of which some call runs for more than ``LINES`` lines.

    Only calls of one-file modules are screened. A job that brings the screen down counts as ending,
    and so do those after it: the check runner will find out.
    """
    rows = [[dict(job.files), _calls(job)] for job in jobs]
    ended = await box.exec(
        ["python3", "-I", "-S", "-c", _SCRIPT],
        stdin=json.dumps([LINES, rows]).encode(),
        timeout=10.0 + 1.0 * len(jobs),
        max_output=4096,
        report=True,
    )
    numbers = [int(line) for line in ended.report.split() if line.isdigit()]
    return {number for number in numbers if number < len(jobs)}


def _calls(job: CheckJob) -> list[list[str]]:
    return [
        [check.module, check.function, check.args]
        for check in job.checks
        if isinstance(check, CallCheck) and f"{check.module}.py" in job.files
    ]
