"""The tool ``bash``: one command in the work folder, in a shell of its own."""

from __future__ import annotations

from palestra.envs.arguments import tool
from palestra.envs.feedback import clip
from palestra.rl.types import ExecResult, Sandbox

TIMEOUT_S = 60.0
MAX_SHOWN = 10_000
"""Characters of output that the policy sees: head and tail."""

BASH = tool(
    "bash",
    "Run a command with bash in the work folder and show its output. Every call has a shell of its "
    f"own; a command may take {TIMEOUT_S:.0f} seconds. There is no network.",
    command="string: the command, which may be several lines",
)

_SCRIPT = 'exec 2>&1; eval "$1"'


async def bash(command: str, box: Sandbox, *, timeout: float = TIMEOUT_S) -> str:
    """Output and errors of ``command`` as they came, and how it ended unless that was well."""
    words = ["bash", "-c", _SCRIPT, "bash", command]
    ended = await box.exec(words, timeout=timeout, max_output=4 * MAX_SHOWN)
    text = clip((ended.stdout + ended.stderr).decode(errors="replace"), MAX_SHOWN)
    how = _ending(ended, timeout)
    return "\n".join(part for part in (text.removesuffix("\n"), how) if part) or "(no output)"


def _ending(ended: ExecResult, timeout: float) -> str:
    left_out = f"[{ended.elided} bytes of output left out] " if ended.elided else ""
    if ended.timed_out:
        return f"{left_out}[ended after {timeout:.0f} s]"
    if ended.oom:
        return f"{left_out}[ended: out of memory]"
    if ended.signal is not None:
        return f"{left_out}[ended by signal {ended.signal}]"
    return left_out + (f"[exit code {ended.exit_code}]" if ended.exit_code else "")
