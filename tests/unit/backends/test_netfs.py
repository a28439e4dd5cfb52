# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network filesystems: what is mounted, how it is told from other mounts, and what is kept secret."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends import netfs
from ansible_collections.virt.storage.plugins.module_utils.decide.pools import decide_pool
from ansible_collections.virt.storage.plugins.module_utils.engines.local import LocalHost, start_note
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.host import kernel, patience, reach
from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.host.mounts import Mount
from ansible_collections.virt.storage.plugins.module_utils.host.notes import boot
from ansible_collections.virt.storage.plugins.module_utils.host.remote import Servers
from ansible_collections.virt.storage.plugins.module_utils.model.found import Found
from ansible_collections.virt.storage.plugins.module_utils.model.goal import PoolGoal
from ansible_collections.virt.storage.plugins.module_utils.model.operations import FirstOf
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Login, Pool, Source, SourceHost


def pool(kind, host="nas1", directory="/export", **more):
    source = Source((SourceHost(host),), dir=directory, format=kind, protocol_version=more.pop("version", None))
    return Pool("p", "netfs", path="/srv/p", source=source, **more)


def mount(fstype, source, *options):
    return Mount("/", "/srv/p", fstype, source, ("rw",), options, (0, 40), 7, 1)


@pytest.fixture
def look(tmp_path, monkeypatch):
    names = {"nas1": ["192.0.2.1"], "nas1.example": ["192.0.2.1"], "nas6": ["2001:db8::1"], "other": ["192.0.2.9"]}
    monkeypatch.setattr(reach, "look_up", lambda name: names.get(name, []))
    monkeypatch.setattr(patience, "in_child", lambda function, seconds: function())
    told = tmp_path / "utab"
    told.write_text("SRC=[2001:db8::2]:/export TARGET=/srv/p ROOT=/ ATTRS=vers=4.2\n")
    monkeypatch.setattr(netfs, "_TOLD", str(told))
    return Look(5.0, str(tmp_path / "records"), str(tmp_path / "starts"))


@pytest.mark.parametrize(
    ("declared", "shown", "same"),
    [
        (pool("nfs"), mount("nfs4", "nas1:/export"), True),
        (pool("nfs"), mount("nfs", "NAS1.:/export/"), True),
        (pool("nfs", directory="/a//b"), mount("nfs4", "nas1:/a/b"), True),
        (pool("nfs"), mount("nfs4", "nas1:/export/sub"), False),
        (pool("nfs"), mount("nfs4", "nas1.example:/export"), True),
        (pool("nfs"), mount("nfs4", "192.0.2.1:/export", "addr=192.0.2.1"), True),
        (pool("nfs"), mount("nfs4", "other:/export", "addr=192.0.2.9"), False),
        (pool("nfs"), mount("nfs4", "nas1:/export", "addr=192.0.2.7"), True),
        (pool("nfs", "2001:db8::1"), mount("nfs4", "[2001:DB8::1]:/export"), True),
        (pool("nfs", "2001:db8:0::1"), mount("nfs4", "nas6:/export", "addr=2001:db8::1"), True),
        (pool("nfs", "2001:db8::2"), mount("nfs4", "192.0.2.1:/export", "addr=192.0.2.1"), True),
        (pool("nfs", "2001:db8::2"), mount("nfs", "192.0.2.1:/export", "addr=192.0.2.1"), False),
        (pool("nfs"), mount("cifs", "//nas1/export"), False),
        (pool("nfs"), mount("ext4", "/dev/sda1"), False),
        (pool("glusterfs", directory="gv0"), mount("fuse.glusterfs", "nas1:/gv0"), True),
        (pool("glusterfs", directory="/gv0"), mount("fuse.glusterfs", "nas1:gv0"), True),
        (pool("glusterfs", "2001:db8::1", "gv0"), mount("fuse.glusterfs", "2001:db8::1:/gv0"), True),
        (pool("glusterfs", directory="gv0"), mount("fuse.sshfs", "nas1:/gv0"), False),
        (pool("cifs", directory="Images/a"), mount("cifs", "//NAS1/images/a"), True),
        (pool("cifs", directory="images/a"), mount("cifs", "//nas1/images/A"), False),
        (pool("cifs", "2001:db8::1", "images"), mount("cifs", "//2001:db8::1/images"), True),
        (pool("auto"), mount("nfs4", "nas1:/export"), True),
        (pool(None, directory="gv0"), mount("fuse.glusterfs", "nas1:/gv0"), True),
        (pool("auto", directory="share"), mount("smb3", "//nas1/share"), True),
        (pool("auto", directory="share", version="4.2"), mount("cifs", "//nas1/share"), False),
    ],
)
def test_what_is_the_source(declared, shown, same, look):
    assert netfs.is_source(shown, declared, look) is same


@pytest.mark.parametrize(
    ("declared", "shown", "root", "same"),
    [
        (pool("cifs", directory="images"), mount("cifs", "//nas1/images"), "/sub", False),
        (pool("cifs", directory="images/sub"), mount("cifs", "//nas1/images/sub"), "/sub", True),
        (pool("cifs", directory="images/sub"), mount("cifs", "//nas1/images/sub"), "/sub/deeper", False),
        (pool("glusterfs", directory="gv0"), mount("fuse.glusterfs", "nas1:/gv0"), "/sub", False),
    ],
)
def test_a_directory_of_what_is_mounted_elsewhere_is_not_the_source(declared, shown, root, same, look):
    """Nothing of the pool's would be found there, and what is found not the pool's."""
    assert netfs.is_source(shown._replace(root=root), declared, look) is same


def words(declared):
    (operation,) = netfs.mounting(declared)
    return operation.argv


@pytest.mark.parametrize(
    ("declared", "options", "source"),
    [
        (pool("nfs"), "nodev,nosuid,noexec", "nas1:/export"),
        (pool("nfs", version="4.2", mount_options=("ro",)), "nodev,nosuid,noexec,nfsvers=4.2,ro", "nas1:/export"),
        (pool("nfs", "fd00::5"), "nodev,nosuid,noexec", "[fd00::5]:/export"),
        (pool("glusterfs", directory="gv0"), "nodev,nosuid,noexec,direct-io-mode=1", "nas1:gv0"),
        (
            pool("glusterfs", "fd00::5", "/gv0"),
            "nodev,nosuid,noexec,direct-io-mode=1,xlator-option=transport.address-family=inet6",
            "fd00::5:/gv0",
        ),
        (pool("cifs", directory="/pub"), "nodev,nosuid,noexec,guest,nobrl", "//nas1/pub"),
        (pool("cifs", "fd00::5", "pub"), "nodev,nosuid,noexec,guest,nobrl", "//fd00::5/pub"),
        (
            pool("cifs", directory="pub", mount_options=("credentials=/etc/c",)),
            "nodev,nosuid,noexec,nobrl,credentials=/etc/c",
            "//nas1/pub",
        ),
    ],
)
def test_how_it_is_mounted(declared, options, source):
    assert words(declared) == ("mount", "-t", declared.source.format, "-o", options, "--", source, "/srv/p")


def test_auto_tries_nfs_then_gluster_then_cifs():
    (operation,) = netfs.mounting(pool("auto", directory="gv0"))
    assert isinstance(operation, FirstOf)
    assert [attempt.helper for attempt in operation.attempts] == ["mount.nfs", "mount.glusterfs", "mount.cifs"]
    assert operation.attempts[0].asks == ("nas1", 2049)
    (operation,) = netfs.mounting(pool("auto", directory="/a/b"))
    assert [attempt.helper for attempt in operation.attempts] == ["mount.nfs", "mount.cifs"]
    assert words(pool("auto", version="4.1"))[2] == "nfs"


def test_a_password_is_in_no_text_of_an_operation():
    login = Login("EXAMPLE\\kvm", "pass,word")
    declared = pool("cifs", directory="pub", login=login)
    (operation,) = netfs.mounting(declared)
    assert operation.credentials.data == b"username=kvm\npassword=pass,word\ndomain=EXAMPLE\n"
    assert "credentials=(private)" in operation.command
    for text in (repr(operation), operation.command, repr(declared), repr(login), str(operation)):
        assert "pass,word" not in text
    (operation,) = netfs.mounting(pool("nfs", login=login))
    assert operation.credentials is None


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        (("username=joe", "password=s3cret"), "CRED,nobrl,username=joe", "password=s3cret"),
        (("ro, pass=s3cret ,username=joe",), "CRED,nobrl,ro,username=joe", "password=s3cret "),
        (("user=DOM/joe%s3=cr%et", "ro"), "CRED,nobrl,user=DOM/joe,ro", "password=s3=cr%et"),
        (("username=joe", "pass=s3cret", "pass=other"), "CRED,nobrl,username=joe", "password=s3cret"),
        (("pass=other", "username=joe%s3cret"), "CRED,nobrl,username=joe", "password=s3cret"),
        (("pass=s3cret", "password2=next"), "CRED,nobrl", "password2=next\npassword=s3cret"),
        (("ro,username=joe",), "nobrl,ro,username=joe", None),
    ],
)
def test_a_password_that_is_in_the_definition_is_told_mount_alone(given, options, told):
    """As mount.cifs would take the options themselves."""
    declared = pool("cifs", directory="pub", mount_options=given)
    (operation,) = netfs.mounting(declared)
    assert operation.argv[4] == f"nodev,nosuid,noexec,{options}".replace("CRED", "credentials=(private)")
    assert (operation.credentials and operation.credentials.data.decode()) == (told and f"{told}\n")
    assert "s3" not in repr(operation)
    for kind in ("nfs", "glusterfs", "auto"):
        (operation,) = netfs.mounting(pool(kind, directory="pub", mount_options=given))
        assert "s3" not in repr(operation)


def test_the_account_that_is_declared_comes_before_that_of_the_definition():
    own = ("username=joe,pass=s3cret,ro", "user=joe%s3cret", "user_xattr")
    (operation,) = netfs.mounting(pool("cifs", directory="pub", mount_options=own, login=Login("kvm", "word")))
    assert operation.argv[4] == "nodev,nosuid,noexec,credentials=(private),nobrl,ro,user_xattr"
    assert operation.credentials.data == b"username=kvm\npassword=word\n"


def test_a_login_makes_no_difference():
    assert pool("cifs", login=Login("a", "b")) == pool("cifs")


@pytest.mark.parametrize(
    ("kind", "version", "kernel_has", "refused"),
    [
        ("nfs", None, "nfs", ""),
        ("nfs", None, "cifs", "no nfs"),
        ("cifs", None, "nfs", "no cifs"),
        ("glusterfs", None, "nfs", "no fuse"),
        ("auto", None, "fuse", ""),
        ("auto", None, "", "no nfs and no fuse and no cifs"),
        ("auto", "4.2", "cifs", "no nfs"),
    ],
)
def test_what_the_kernel_can_not_mount_is_known_before(look, monkeypatch, kind, version, kernel_has, refused):
    monkeypatch.setattr(kernel, "has", lambda name, module: name == kernel_has)
    look.once("mounts", list)
    declared = pool(kind, version=version)
    unable = netfs.observe(declared, look, False).unable
    assert (unable is None) == (not refused)
    if unable is None:
        return
    assert unable.code == "not_supported"
    assert f"has {refused}:" in unable.what
    storage = netfs.observe(declared, look, False)
    found = Found("p", storage=storage, current=storage)
    refusal = decide_pool(PoolGoal(declared, "active"), found).refusal
    assert refusal.code == "not_supported"
    assert decide_pool(PoolGoal(declared, "inactive"), found).refusal is None


def test_what_we_mounted_is_ours_whatever_it_is_called(tmp_path, monkeypatch):
    """A format that was left to the mounting may be said later, and changes nothing there."""
    monkeypatch.setattr(Servers, "answers", lambda _servers, _mount: True)
    host = LocalHost(find_places(f"native:///?root={tmp_path}"), 5)

    def observed(declared, path="/srv/p"):
        look = host.look()
        root = Mount("/", "/", "ext4", "/dev/vda", ("rw",), (), (254, 0), 1, 0)
        look.once("mounts", lambda: [root, mount("cifs", "//nas1/export")._replace(point=path)])
        return host.storage(declared, look)

    note = Path(host.notes.started_path("p"))
    note.parent.mkdir(parents=True)
    note.write_text(start_note(observed(pool("auto"))))
    assert [observed(pool(kind)).ours for kind in ("auto", None, "cifs")] == [True, True, True]
    assert observed(pool("cifs")).up
    elsewhere = observed(replace(pool("cifs"), path="/srv/q"), "/srv/q")
    assert (elsewhere.up, elsewhere.ours) == (True, False)
    note.write_text(note.read_text().replace(boot(), "another boot"))
    assert not observed(pool("auto")).ours


def test_what_is_mounted_the_kernel_could_mount(look, monkeypatch, tmp_path):
    monkeypatch.setattr(kernel, "has", lambda name, module: False)
    root = Mount("/", "/", "ext4", "/dev/vda", ("rw",), (), (254, 0), 1, 0)
    look.once("mounts", lambda: [root, mount("nfs4", "nas1:/export")])
    monkeypatch.setattr(look.servers, "answers", lambda _mount: True)
    assert netfs.observe(pool("nfs"), look, False).unable is None
