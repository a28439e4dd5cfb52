# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets: which object is meant, what it holds, and that nothing shows it."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Auth, Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.secrets import (
    SecretObject,
    declared_value,
    new_object,
    object_of,
    object_uuid,
    own_usage,
    password,
    value_of,
    with_reference,
)

WORD = "hunter2"
UUID = "5b7a9c1e-0d3f-4a68-8c2b-7e5d1f9a3c60"


def pool(secret: str | None = WORD, kind: str = "chap", **auth: str) -> Pool:
    return Pool("san", source=Source(auth=Auth(kind, "kvm1", **auth)), secret=secret)


def kept(value: bytes | None = WORD.encode(), usage: str = own_usage("san"), **more) -> SecretObject:
    return SecretObject(UUID, "iscsi", usage, value=value, **more)


# -- which one ----------------------------------------------------------------------------------------------------


def test_one_of_the_pools_own_where_none_is_named():
    assert with_reference(pool()).source.auth.secret_usage == "virt.storage pool san"


@pytest.mark.parametrize("named", [{"secret_usage": "x"}, {"secret_uuid": UUID}])
def test_what_is_named_stays(named):
    assert with_reference(pool(**named), pool(secret_usage="other")) == pool(**named)


def test_the_definitions_own_where_none_is_named():
    assert with_reference(pool(), pool(None, secret_usage="theirs")).source.auth.secret_usage == "theirs"


def test_not_that_of_another_way_to_log_in():
    assert with_reference(pool(), pool(None, "ceph", secret_usage="c")).source.auth.secret_usage == own_usage("san")


def test_without_a_secret_nothing_is_named():
    assert with_reference(pool(None)) == pool(None)


@pytest.mark.parametrize(
    ("auth", "meant"),
    [
        (Auth("chap", "u", secret_uuid=UUID), True),
        (Auth("chap", "u", secret_uuid=UUID.replace("5", "6")), False),
        (Auth("chap", "u", secret_usage=own_usage("san")), True),
        (Auth("chap", "u", secret_usage="other"), False),
        (Auth("ceph", "u", secret_usage=own_usage("san")), False),
        (None, False),
    ],
    ids=["uuid", "other-uuid", "usage", "other-usage", "other-type", "none"],
)
def test_which_object_is_meant(auth, meant):
    assert (object_of(auth, [kept()]) is not None) == meant


def test_the_uuid_is_the_same_each_time_and_another_one_for_another_use():
    assert object_uuid("iscsi", "a") == object_uuid("iscsi", "a")
    assert len({object_uuid("iscsi", "a"), object_uuid("ceph", "a"), object_uuid("iscsi", "b")}) == 3
    assert new_object(pool(secret_uuid=UUID)).uuid == UUID


# -- what it holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("chap", "pässword", "pässword".encode()),
        ("chap", "", None),
        ("ceph", "AQID", b"\1\2\3"),
        ("ceph", "no key!", None),
        ("ceph", "", None),
        ("ceph", "AQI", None),
    ],
)
def test_values(kind, text, value):
    assert value_of(Auth(kind, "u"), text) == value


def test_the_password_that_is_declared_comes_first():
    assert password(pool(), [kept(b"other")]) == WORD


def test_else_that_which_is_kept():
    assert password(pool(None, secret_uuid=UUID), [kept(b"other")]) == "other"
    key = SecretObject(UUID, "ceph", "c", value=b"\1\2\3")
    assert password(pool(None, "ceph", secret_usage="c"), [key]) == "AQID"


def test_who_logs_in_nowhere_needs_none():
    assert password(Pool("san"), []) is None


@pytest.mark.parametrize("known", [[], [kept(None)]], ids=["none", "empty"])
def test_one_that_is_not_there(known):
    with pytest.raises(StorageError) as caught:
        password(pool(None, secret_usage=own_usage("san")), known)
    assert caught.value.code == "secret_missing"


def test_nothing_shows_it():
    assert WORD not in repr(pool())
    assert WORD not in repr(kept())
    assert WORD not in repr(Found("san", secrets=(kept(),)))


def test_a_pool_without_a_declared_secret_holds_none():
    assert declared_value(pool(None, secret_usage="x")) is None


def test_not_with_the_secret_of_something_else():
    with pytest.raises(StorageError, match="is for volume"):
        password(pool(None, secret_uuid=UUID), [SecretObject(UUID, "volume", "", value=b"luks")])


def test_a_new_one_by_its_uuid_has_a_usage_of_its_own():
    assert new_object(pool(secret_uuid=UUID)).usage != new_object(with_reference(pool())).usage
