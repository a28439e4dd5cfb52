# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Declared volumes against found ones, field by field: by meaning, and only what was declared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Callable

from ..model.facts import backing_facts
from ..model.found import UNSEEN, Found
from ..model.types import VOLUME_FORMATS, VolumeFormat
from ..model.units import format_mode
from ..model.volume import Volume

OTHER_FORMAT = VolumeFormat("other", in_place=("mode", "owner", "group"))


@dataclass(frozen=True)
class Difference:
    """``have`` and ``want`` as facts. ``in_place``: can be changed on the volume as it is."""

    field: str
    have: Any
    want: Any
    in_place: bool


def format_row(name: str | None) -> VolumeFormat:
    return VOLUME_FORMATS.get(name or "", OTHER_FORMAT)


def capacity_met(want: Volume, have: Volume, found: Found) -> bool:
    """``want <= have < want + granule``; any larger one with the policy at_least."""
    if want.capacity is None or have.capacity is None:
        return want.capacity is None
    if want.at_least:
        return have.capacity >= want.capacity
    granule = max(format_row(have.format).granule, found.granule)
    return want.capacity <= have.capacity < want.capacity + granule


def _format_met(want: Volume, have: Volume, found: Found) -> bool:
    """Nothing is compared where a daemon shows no format, as it does of block devices."""
    if have.format is None and found.row.volumes != "file":
        return want.format not in found.row.made_here
    if found.row.volumes == "block" and want.format in ("none", "raw"):
        return True  # of a partition it says that nothing is known of what it is for
    return _same(want.format, have.format or "raw")


def _same(want: Any, have: Any) -> bool:
    return want is None or want == have


def _backing_met(want: Volume, have: Volume, found: Found) -> bool:
    if want.backing is None:
        return True
    if have.backing is None:
        return False
    want_path = want.backing.path or found.volume_path(want.backing.volume or "")
    same_path = found.resolved.get(want_path or "", want_path) == found.resolved.get(
        have.backing.path or "", have.backing.path
    )
    return same_path and _same(want.backing.format, have.backing.format)


def _content_met(want: Volume, have: Volume, found: Found) -> bool:
    """Only inline content is compared: the start of the volume against it. Other content counts at creation only."""
    if want.content is None or want.content.data is None or want.name not in found.digests:
        return True
    return found.digests[want.name] == hashlib.sha256(want.content.data).hexdigest()


def _backing_fact(volume: Volume, found: Found) -> Any:
    if volume.backing is None:
        return None
    facts = backing_facts(volume.backing)
    facts["path"] = volume.backing.path or found.volume_path(volume.backing.volume or "")
    return facts


def _encryption_fact(volume: Volume, found: Found) -> str:
    """Whether there is one: which key opens it is not written in an image."""
    return "on" if volume.encrypted or volume.encryption is not None else "off"


def _mode_fact(volume: Volume) -> Any:
    return None if volume.permissions.mode is None else format_mode(volume.permissions.mode)


def _plain(name: str) -> Callable[[Volume, Found], Any]:
    return lambda volume, found: getattr(volume, name)


_COMPARED: tuple[tuple[str, Callable[[Volume, Volume, Found], bool], Callable[[Volume, Found], Any]], ...] = (
    ("format", _format_met, _plain("format")),
    ("thin_pool", lambda want, have, found: _same(want.thin_pool, have.thin_pool), _plain("thin_pool")),
    ("compat", lambda want, have, found: _same(want.compat, have.compat), _plain("compat")),
    ("cluster_size", lambda want, have, found: _same(want.cluster_size, have.cluster_size), _plain("cluster_size")),
    (
        "lazy_refcounts",
        lambda want, have, found: _same(want.lazy_refcounts, bool(have.lazy_refcounts)),
        _plain("lazy_refcounts"),
    ),
    (
        "extended_l2",
        lambda want, have, found: _same(want.extended_l2, bool(have.extended_l2)),
        _plain("extended_l2"),
    ),
    ("encryption", lambda want, have, found: want.encryption is None or have.encrypted, _encryption_fact),
    ("backing", _backing_met, _backing_fact),
    ("content", _content_met, lambda volume, found: "other content" if volume.content is None else "the content given"),
    ("capacity", capacity_met, _plain("capacity")),
    ("owner", lambda w, h, f: _same(w.permissions.owner, h.permissions.owner), lambda v, f: v.permissions.owner),
    ("group", lambda w, h, f: _same(w.permissions.group, h.permissions.group), lambda v, f: v.permissions.group),
    ("mode", lambda w, h, f: _same(w.permissions.mode, h.permissions.mode), lambda v, f: _mode_fact(v)),
)


def _in_place(have: Volume, found: Found) -> tuple[str, ...]:
    """The facts that can be changed on a volume as it is."""
    if found.row.volumes == "block" and found.storage.kind != UNSEEN:
        bound = have.backing is not None and have.thin_pool is None  # it has the size of its origin
        return ("capacity",) if "resize" in found.can and not bound else ()
    return format_row(have.format).in_place


def shown(fact: Any) -> str:
    """A fact in a sentence."""
    if isinstance(fact, dict):  # a backing
        return " as ".join(str(value) for value in fact.values())
    if isinstance(fact, bool):
        return "on" if fact else "off"
    return "none" if fact is None else str(fact)


def differences(want: Volume, have: Volume, found: Found) -> tuple[Difference, ...]:
    """In the order in which they are changed."""
    in_place = _in_place(have, found)
    return tuple(
        Difference(name, fact(have, found), fact(want, found), name in in_place)
        for name, met, fact in _COMPARED
        if not met(want, have, found)
    )
