# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A declared secret against what is kept of it, and when it goes."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.decide.secrets import (
    AS_DECLARED,
    fact,
    forget,
    going,
    keep,
    kept_unseen,
)
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Auth, Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.secrets import (
    SecretObject,
    own_usage,
    with_reference,
)

WORD = "hunter2"
UUID = "5b7a9c1e-0d3f-4a68-8c2b-7e5d1f9a3c60"


def pool(secret: str | None = WORD, kind: str = "chap", **auth: str) -> Pool:
    return Pool("san", source=Source(auth=Auth(kind, "kvm1", **auth)), secret=secret)


def kept(value: bytes | None = WORD.encode(), usage: str = own_usage("san"), **more) -> SecretObject:
    return SecretObject(UUID, "iscsi", usage, value=value, **more)


def decided(*known: SecretObject, starts: bool = False) -> list[tuple[str, str]]:
    wanted = with_reference(pool())
    changes = keep(PoolGoal(wanted), Found("san", secrets=known), wanted, starts)
    assert WORD not in repr(changes)
    return [(change.summary, change.before["secret"]) for change in changes]


CALLED = "the iscsi secret 'virt.storage pool san'"


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize(
    ("known", "change"),
    [
        ((), [(f"pool san: make {CALLED}", "none")]),
        ((kept(),), []),
        ((kept(b"other"),), [(f"pool san: set the value of {CALLED}", "another one")]),
        ((kept(None),), [(f"pool san: set the value of {CALLED}", "none")]),
        ((kept(usage="theirs"),), [(f"pool san: make {CALLED}", "none")]),
    ],
    ids=["none", "same", "other", "empty", "theirs"],
)
def test_what_is_kept_is_made_what_is_declared(known, change, starts):
    assert decided(*known, starts=starts) == change


@pytest.mark.parametrize("kind", ["volume", "ceph", ""])
def test_the_secret_of_something_else_is_not_overwritten(kind):
    wanted = pool(secret_uuid=UUID)
    with pytest.raises(StorageError) as caught:
        keep(PoolGoal(wanted), Found("san", secrets=(SecretObject(UUID, kind, ""),)), wanted, True)
    assert caught.value.code == "uuid_conflict"
    assert WORD not in str(caught.value)


def test_what_nobody_can_read_is_set_when_it_is_needed():
    unread = kept(None, readable=False)
    assert decided(unread) == []
    assert decided(unread, starts=True) == [(f"pool san: set the value of {CALLED}", "can't be read")]


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ((kept(),), AS_DECLARED),
        ((kept(b"x"),), "another one"),
        ((), "none"),
        ((kept(None, readable=False),), AS_DECLARED),
    ],
    ids=["same", "other", "none", "unreadable"],
)
def test_what_is_claimed_is_looked_at(known, told):
    assert fact(pool(), Found("san", secrets=known)) == told


@pytest.mark.parametrize(
    ("secret", "goes"),
    [
        (kept(ours=True), True),
        (kept(), False),
        (kept(ours=True, users=("pool two",)), False),
        (kept(ours=True, usage="other"), False),
    ],
    ids=["ours", "theirs", "used", "another"],
)
def test_which_one_goes_with_the_pool(secret, goes):
    found = Found("san", definition=with_reference(pool()), secrets=(secret,))
    assert bool(going(found, None)) == goes
    assert going(found, with_reference(pool())) == ()
    assert bool(going(found, pool(secret_uuid="another"))) == goes


@pytest.mark.parametrize(
    ("of", "users", "goes"), [("san", (), True), ("other", (), False), ("san", ("guest g",), False)]
)
def test_one_that_an_earlier_definition_named_goes_too(of, users, goes):
    """Somebody changed the definition by hand, or a task that did was ended in the middle."""
    left = kept(ours=True, usage="virt.storage pool san", pool=of, users=users)
    wanted = pool(None, secret_uuid="another")
    found = Found("san", definition=wanted, secrets=(left,))
    changes = forget(PoolGoal(wanted), found, wanted)
    assert [(each.before, each.after) for each in changes] == (
        [({"old_secret": left.usage}, {"old_secret": None})] if goes else []
    )


@pytest.mark.parametrize("wanted", [None, pool(secret_uuid="another")], ids=["undefined", "redefined"])
def test_one_that_may_be_named_where_nobody_could_look_stays(wanted):
    secret = kept(ours=True, unseen=("the guest's definition /etc/g.xml",))
    found = Found("san", definition=with_reference(pool()), secrets=(secret,))
    assert going(found, wanted) == ()
    (warning,) = kept_unseen(found, wanted)
    assert ("/etc/g.xml" in warning, UUID in warning) == (True, True)
    assert kept_unseen(found, with_reference(pool())) == ()


def test_a_value_that_was_on_its_way_is_set_again():
    """Whatever is there of the one that it was to replace."""
    assert decided(kept(begun=True)) == [(f"pool san: set the value of {CALLED}", "begun by a task that was ended")]
