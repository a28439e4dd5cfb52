# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that hold a secret, in every form that mount.cifs takes, and what is shown of them."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.facts import definition_facts
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool
from ansible_collections.virt.storage.plugins.module_utils.model.private import (
    has_password,
    hidden,
    is_secret,
    names_account,
    passwords,
    public_options,
    shown_option,
    shown_value,
)


@pytest.mark.parametrize(
    ("option", "shown", "public", "found"),
    [
        ("password=s3cret", "password=(private)", (), [("password=", "s3cret")]),
        ("pass=s3cret", "pass=(private)", (), [("pass=", "s3cret")]),
        ("PASSWD=s3=cr%et", "PASSWD=(private)", (), [("PASSWD=", "s3=cr%et")]),
        ("password2=s3cret", "password2=(private)", (), [("password2=", "s3cret")]),
        ("pass", "pass=(private)", (), [("pass=", "")]),
        ("ro, pass=s3cret,noatime", "ro, pass=(private),noatime", ("ro,noatime",), [("pass=", "s3cret")]),
        ("user=joe%s3%cret", "user=joe%(private)", ("user=joe",), [("user=joe%", "s3%cret")]),
        (
            "ro,username=DOM\\joe%s3cret",
            "ro,username=DOM\\joe%(private)",
            ("ro,username=DOM\\joe",),
            [("username=DOM\\joe%", "s3cret")],
        ),
        ("username=joe", "username=joe", ("username=joe",), []),
        ("user_xattr,users", "user_xattr,users", ("user_xattr,users",), []),
        ("credentials=/etc/share", "credentials=/etc/share", ("credentials=/etc/share",), []),
        ("domain=a%b,sec=ntlmssp", "domain=a%b,sec=ntlmssp", ("domain=a%b,sec=ntlmssp",), []),
    ],
)
def test_a_password_in_mount_options(option, shown, public, found):
    assert shown_option(option) == shown
    assert public_options([option]) == public
    assert list(passwords([option])) == found
    assert any(map(has_password, option.split(","))) is bool(found)


def test_who_connects():
    words = ("user=joe", " username=joe", "pass=x", "user=joe%x", "users", "user_xattr", "cred=/x", "uid=1")
    assert [word for word in words if names_account(word)] == list(words[:4])


@pytest.mark.parametrize(("name", "secret"), [("key", True), (" Key", True), ("keyring", False), ("keyfile", False)])
def test_the_key_among_options_of_ceph(name, secret):
    assert is_secret(name) is secret
    assert shown_value(name, "AQ==") == ("(private)" if secret else "AQ==")


def test_facts_show_no_secret():
    pool = Pool("p", mount_options=("username=a", "pass=s3cret"), config_options=(("key", "AQ=="), ("timeout", "3")))
    assert definition_facts(pool) == {
        "mount_options": ["username=a", "pass=(private)"],
        "config_options": {"key": "(private)", "timeout": "3"},
    }


def test_a_text_of_somebody_who_was_told_a_password():
    options = ["ro", "pass=it's,username=joe%it", "pass=it"]
    text = r"mount -o 'ro,pass=it'\''s,username=joe%it': (mount pass=it's) failed with pass=it: it is not let in"
    assert hidden(text, options) == (
        "mount -o 'ro,pass=(private),username=joe%(private)': (mount pass=(private)) failed with pass=(private): it is "
        "not let in"
    )
    assert hidden(text, ()) == text
