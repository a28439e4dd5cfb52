# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a command inside an environment: dev/run [--python 3.11] COMMAND..."""

from __future__ import annotations

import os

import environments
import places
from places import Stop


def entry(arguments: list[str]) -> int:
    choice = environments.prepare("test")
    python = choice.main
    if arguments[:1] == ["--python"]:
        wanted, arguments = arguments[1], arguments[2:]
        made = {each.short: each for each in choice.wanted}
        if wanted not in made:
            raise Stop(f"There is no environment for Python {wanted}; there are: {', '.join(made)}")
        python = made[wanted]
    if not arguments:
        raise Stop(str(__doc__))
    os.execvpe(arguments[0], arguments, places.tool_environment(python.name, choice.directories()))


if __name__ == "__main__":
    places.main(entry)
