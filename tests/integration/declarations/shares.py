# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What random sequences came to, and whether they were worth running: shares of states, actions and outcomes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .declared import PoolTask, VolumeTask

# Each of these states has to be at least 5 % of all steps; each of the actions, in at least 5 % of the sequences.
STATES = (
    "pool present", "pool active", "pool inactive", "pool absent", "pool deleted", "volume present", "volume absent",
)  # fmt: skip
ACTIONS = (
    "define", "redefine", "build", "start", "stop", "autostart", "undefine", "delete pool", "permissions pool",
    "create", "grow", "shrink", "amend", "rebase", "recreate", "permissions volume", "delete volume",
)  # fmt: skip


def count(counts: Counter, happened: set[str], task: PoolTask | VolumeTask, done: dict[str, Any]) -> None:
    """Adds a step to ``counts``, and what it did to what ``happened`` in its sequence."""
    counts["steps"] += 1
    counts["refused" if "failed" in done else "changed" if done["changed"] else "no-op"] += 1
    if "failed" in done:
        counts[f"refused: {done['error']['code']}"] += 1
    if isinstance(task, PoolTask):
        counts["steps on pools"] += 1
        counts[f"pool {task.wanted_state}"] += 1
    else:
        counts["steps on volumes"] += 1
        states = {options.get("state") or "present" for _unused, options in task.effective()}
        counts.update(f"volume {state}" for state in states)
        counts["exclusive"] += task.exclusive is not None
        counts["volumes lists"] += task.as_list
        happened |= {"exclusive"} if task.exclusive is not None else set()
    if "failed" not in done:
        actions = {_named(entry) for entry in done["plan"]}
        counts.update(f"action {action}" for action in actions)
        happened |= actions


def count_sequence(counts: Counter, happened: set[str]) -> None:
    counts["sequences"] += 1
    counts.update(f"sequences with {action}" for action in happened)


def _named(entry: dict[str, Any]) -> str:
    """The action as it is counted: growing and shrinking are two, and so are pools and volumes where both have one."""
    if entry["action"] == "resize":
        return "shrink" if entry["destroys"] else "grow"
    if entry["action"] in ("delete", "permissions"):
        return f"{entry['action']} {entry['subject'].split(' ')[0]}"
    return str(entry["action"])


def too_rare(counts: Counter) -> list[str]:
    steps, sequences = counts["steps"], counts["sequences"]
    rare = [state for state in STATES if counts[state] < 0.05 * steps]
    rare += [action for action in ACTIONS if counts[f"sequences with {action}"] < 0.05 * sequences]
    rare += [outcome for outcome in ("changed", "refused", "no-op") if counts[outcome] < 0.2 * steps]
    return rare + (["steps foreseen"] if counts["steps not foreseen"] > 0.05 * steps else [])


def table(title: str, counts: Counter, seconds: float) -> str:
    steps, sequences = counts["steps"] or 1, counts["sequences"] or 1
    lines = [f"\n{title}: {sequences} sequences of {steps} steps, {seconds:.0f} s of work"]

    def add(title: str, names: list[tuple[str, str]], whole: int, of: str) -> None:
        shown = ", ".join(f"{label} {counts[name]} ({100 * counts[name] / whole:.0f} %)" for label, name in names)
        lines.append(f"  {title} (of {of}): {shown}")

    add("outcomes", [(name, name) for name in ("changed", "refused", "no-op", "steps not foreseen")], steps, "steps")
    add("states", [(name, name) for name in STATES], steps, "steps")
    add("lists", [(name, name) for name in ("volumes lists", "exclusive")], steps, "steps")
    add("actions", [(name, f"sequences with {name}") for name in ACTIONS], sequences, "sequences")
    codes = sorted(name for name in counts if name.startswith("refused: "))
    add("refusals", [(name[len("refused: ") :], name) for name in codes], steps, "steps")
    return "\n".join(lines)
