# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""Options of pools that hold a secret: which these are, and what is shown of them.

None of them can be declared. What somebody else has written into a definition stays there as it is, and is compared as
it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

PRIVATE = "(private)"
_CEPH = ("key",)  # keyring and keyfile name files (Ceph: Cephx Config Reference)


# --- mount options ---------------------------------------------------------------------------------------------------


def _parted(word: str) -> tuple[str, str | None]:
    """What may be shown of an option, and the password behind it; None where it has none. mount.cifs goes by the first
    letters of an option, and takes what follows a percent sign in the name of a user for the password.
    """
    name, equals, value = word.partition("=")
    known = name.strip().lower()
    if known.startswith("pass"):
        return (name + equals if equals else "pass="), value
    if known.startswith("user") and "%" in word:
        shown, percent, password = word.partition("%")
        return shown + percent, password
    return word, None


def has_password(word: str) -> bool:
    """Whether there is one in a mount option."""
    return _parted(word)[1] is not None


def names_account(word: str) -> bool:
    """Whether a mount option says who connects, or with which password."""
    return has_password(word) or word.partition("=")[0].strip() in ("user", "username")


def passwords(options: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those in mount options, each with the beginning of its option."""
    for option in options:
        for word in option.split(","):
            shown, password = _parted(word)
            if password is not None:
                yield shown.strip(), password


def public_options(options: Iterable[str]) -> tuple[str, ...]:
    """Mount options without their passwords, for a command line that anybody can read."""
    return tuple(filter(None, (",".join(filter(None, map(_public, option.split(",")))) for option in options)))


def _public(word: str) -> str:
    shown, password = _parted(word)
    if password is None:
        return word
    return shown[:-1] if shown.endswith("%") else ""


def shown_option(option: str) -> str:
    """A mount option, or several with commas between them, as it is shown."""
    return ",".join(map(_shown, option.split(",")))


def _shown(word: str) -> str:
    shown, password = _parted(word)
    return word if password is None else shown + PRIVATE


def hidden(text: str, options: Iterable[str]) -> str:
    """A text of somebody who was told these mount options, without their passwords. A command line in it may have them
    in quotes.
    """
    words = {word for option in options for word in option.split(",") if _parted(word)[1]}
    for word in sorted(words, key=len, reverse=True):
        for form in (word.replace("'", "'\\''"), word):
            text = text.replace(form, _shown(word))
    return text


# --- options of Ceph -------------------------------------------------------------------------------------------------


def is_secret(name: str) -> bool:
    """Whether the value of this option of Ceph is one."""
    return name.strip().lower() in _CEPH


def shown_value(name: str, value: str) -> str:
    return PRIVATE if is_secret(name) else value
