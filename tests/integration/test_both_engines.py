# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random sequences of tasks through both engines: equal results, equal records, equal files."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from .conftest import keep_private
from .declarations import making
from .declarations.making import Drawer

pytestmark = [pytest.mark.needs_ansible, pytest.mark.root, pytest.mark.libvirt_binding]

SHARDS = 4


def run_sequence(numbers: Random, twins, counts: Counter, story: list[str]) -> None:
    from .declarations.twins import TwinSequence, Unforeseen

    draw = Drawer(numbers)
    start = making.start(draw)
    story.append(f"start: {start}")
    sequence = TwinSequence(twins, start, counts)
    try:
        for _unused in range(draw.number(3, 5)):
            if draw.chance(14):
                hand = making.hand(draw, sequence.host)
                if hand is not None:
                    story.append(f"by hand: {hand}")
                    sequence.by_hand(hand)
            task = making.task(draw, sequence.host, twins.shop.world, sequence.earlier)
            story.append(f"{task.module}: {task.params()}")
            sequence.do(task)
    except Unforeseen:
        pass
    sequence.end()
