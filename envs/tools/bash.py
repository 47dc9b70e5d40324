"""The tool ``bash``: one command in the work folder, in a shell of its own."""

from __future__ import annotations

from dataclasses import replace

from palestra.envs.arguments import tool
from palestra.envs.tools.observed import MAX_SHOWN, observed
from palestra.rl.types import ExecResult, Observation, Sandbox

TIMEOUT_S = 60.0

BASH = tool(
    "bash",
    "Run a command with bash in the work folder and show its output. Every call has a shell of its "
    f"own; a command may take {TIMEOUT_S:.0f} seconds. There is no network.",
    command="string: the command, which may be several lines",
)

_SCRIPT = 'exec 2>&1; eval "$1"'


async def bash(command: str, box: Sandbox, *, timeout: float = TIMEOUT_S) -> Observation:
    """Output and errors of ``command`` as they came, and how it ended unless that was well."""
    words = ["bash", "-c", _SCRIPT, "bash", command]
    ended = await box.exec(words, timeout=timeout, max_output=4 * MAX_SHOWN)
    seen = observed(ended.stdout + ended.stderr, lost=ended.elided)
    parts = (seen.text.removesuffix("\n"), _ending(ended, timeout))
    return replace(seen, text="\n".join(part for part in parts if part) or "(no output)")


def _ending(ended: ExecResult, timeout: float) -> str:
    if ended.timed_out:
        return f"[ended after {timeout:.0f} s]"
    if ended.oom:
        return "[ended: out of memory]"
    if ended.signal is not None:
        return f"[ended by signal {ended.signal}]"
    return f"[exit code {ended.exit_code}]" if ended.exit_code else ""
