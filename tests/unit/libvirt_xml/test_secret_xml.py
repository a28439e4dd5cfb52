# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects of secrets as libvirt has them, without their values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.secret import parse_secret, render_secret
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Auth, Pool, Source
from ansible_collections.virt.storage.plugins.module_utils.model.secrets import SecretObject, new_object

UUID = "5b7a9c1e-0d3f-4a68-8c2b-7e5d1f9a3c60"


@pytest.mark.parametrize("kind", ["chap", "ceph"])
def test_what_is_written_is_read(kind):
    auth = Auth(kind, "kvm1", secret_usage="a <b> & 'c'")
    made = new_object(Pool("san", source=Source(auth=auth)))
    assert parse_secret(render_secret(made, "san")) == replace(made, private=True)


@pytest.mark.parametrize(
    ("usage", "kind"),
    [("", ""), ("<usage type='volume'><volume>/x</volume></usage>", "volume")],
    ids=["no-usage", "of-a-volume"],
)
def test_what_is_for_no_pool(usage, kind):
    assert parse_secret(f"<secret><uuid>{UUID}</uuid>{usage}</secret>") == SecretObject(UUID, kind, "")


def test_one_of_somebody_else():
    text = f"<secret><uuid>{UUID}</uuid><usage type='iscsi'><target>x</target></usage></secret>"
    assert parse_secret(text) == SecretObject(UUID, "iscsi", "x")
