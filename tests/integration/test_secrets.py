# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets that are declared with a pool: kept as libvirt keeps them, natively and by a real libvirtd, and shown
nowhere.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines import native

from .crash_support import done, unchanged

WORD, OTHER = "hunter2-öä'\"%", "correct horse"
KEY = base64.b64encode(b"\x01\x00" + b"k" * 30).decode()
CHAP = {"type": "iscsi", "path": "/dev/disk/by-path", "state": "present"}
SOURCE = {"host": "127.0.0.1:9", "iqn": "iqn.2026-01.test:none"}
OWN = "virt.storage pool {}"

pytestmark = [pytest.mark.needs_ansible]


def declared(name: str, secret: str | None = WORD, **auth: Any) -> dict[str, Any]:
    source = {**SOURCE, "auth": {"type": "chap", "username": "kvm1", "secret": secret, **auth}}
    return {**CHAP, "name": name, "source": source}


def of_ceph(name: str, secret: str = KEY) -> dict[str, Any]:
    auth = {"type": "ceph", "username": "libvirt", "secret": secret}
    source = {"host": "127.0.0.1:9", "name": "vms", "auth": auth}
    return {"name": name, "type": "rbd", "source": source, "state": "present"}


def said(result: dict[str, Any]) -> str:
    """All that a result shows, but for what the caller gave."""
    return repr({name: value for name, value in result.items() if name != "invocation"})


def quiet(result: dict[str, Any], *words: str) -> dict[str, Any]:
    """The result, which shows none of the words."""
    text = said(result)
    for word in words or (WORD, OTHER, KEY):
        assert word not in text
        assert base64.b64encode(word.encode()).decode() not in text
    return result


def converges(act: Any, **params: Any) -> dict[str, Any]:
    """The result of a real run: as check mode said, and with nothing left to do after it."""
    checked = quiet(done(act(check=True, **params)))
    made = quiet(done(act(**params)))
    assert made["changed"]
    assert (checked["plan"], checked["diff"]) == (made["plan"], made["diff"])
    unchanged(quiet(act(**params)))
    unchanged(quiet(act(check=True, **params)))
    return made


# -- natively -----------------------------------------------------------------------------------------------------


def files(host: Any) -> dict[str, bytes]:
    found = (Path(host.root) / "etc/libvirt/secrets").glob("*")
    return {path.name: path.read_bytes() for path in found}


UUID = "5b7a9c1e-0d3f-4a68-8c2b-7e5d1f9a3c60"


def put(host: Any, usage: str, value: bytes) -> None:
    directory = Path(host.root) / "etc/libvirt/secrets"
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    (directory / f"{UUID}.xml").write_text(f"<secret><uuid>{UUID}</uuid>{usage}</secret>")
    (directory / f"{UUID}.base64").write_bytes(value)


@pytest.mark.parametrize(
    "usage", ["<usage type='volume'><volume>/a</volume></usage>", "<usage type='ceph'><name>c</name></usage>", ""]
)
def test_the_secret_of_something_else_stays(host, usage):
    put(host, usage, base64.b64encode(b"luks"))
    before = files(host)
    for check in (True, False):
        refused = host.pool(check=check, **declared("san", secret_uuid=UUID))
        assert refused["error"]["code"] == "uuid_conflict"
    assert files(host) == before


def test_a_value_that_is_damaged_is_set_again(host):
    put(host, "<usage type='iscsi'><target>san</target></usage>", b"a")
    converges(host.pool, **declared("san", secret_usage="san"))
    assert base64.b64decode(files(host)[f"{UUID}.base64"]).decode() == WORD


def test_a_secret_is_kept_as_libvirt_keeps_it(host):
    made = converges(host.pool, **declared("san"))
    assert [entry["action"] for entry in made["plan"]] == ["define", "secret"]
    kept = files(host)
    assert len(kept) == 2
    (value,) = (text for name, text in kept.items() if name.endswith(".base64"))
    assert base64.b64decode(value).decode() == WORD
    directory = Path(host.root) / "etc/libvirt/secrets"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    (definition,) = (Path(host.root) / "etc/libvirt/storage").glob("*.xml")
    assert f"<secret usage='{OWN.format('san')}'/>" in definition.read_text()
    assert WORD not in definition.read_text()


def test_check_mode_keeps_none(host):
    done(host.pool(check=True, **declared("san")))
    assert files(host) == {}


def test_another_value(host):
    done(host.pool(**declared("san")))
    made = converges(host.pool, **declared("san", OTHER))
    assert [entry["action"] for entry in made["plan"]] == ["secret"]
    assert made["diff"] == {
        "before": "pool san:\n  secret: another one\n",
        "after": "pool san:\n  secret: the one declared\n",
    }


def test_a_damaged_value_of_our_own_is_set_again(host):
    done(host.pool(**declared("san")))
    (kept,) = (Path(host.root) / "etc/libvirt/secrets").glob("*.base64")
    kept.write_text("x")
    converges(host.pool, **declared("san"))
    assert base64.b64decode(kept.read_text()) == WORD.encode()


def test_without_the_secret_the_task_leaves_it(host):
    done(host.pool(**declared("san")))
    before = files(host)
    usage = OWN.format("san")
    unchanged(host.pool(**declared("san", None, secret_usage=usage)))
    unchanged(host.pool(name="san", state="present"))
    assert files(host) == before


def test_a_key_of_ceph_is_kept_decoded(host):
    converges(host.pool, **of_ceph("vms"))
    (value,) = (text for name, text in files(host).items() if name.endswith(".base64"))
    assert base64.b64decode(value) == base64.b64decode(KEY)


@pytest.mark.parametrize("secret", ["", "line\nbreak", "nul\0"])
def test_what_is_no_password(host, secret):
    refused = quiet(host.pool(**declared("san", secret)), "line\nbreak", "nul\0")
    assert refused["error"]["code"] == "invalid_option"
    assert files(host) == {}


def test_what_is_no_key_of_ceph(host):
    refused = quiet(host.pool(**of_ceph("vms", "no key!")), "no key!")
    assert refused["error"]["code"] == "invalid_option"


@pytest.mark.parametrize("state", ["absent", "undefined"])
def test_it_goes_with_the_pool(host, state):
    done(host.pool(**declared("san")))
    gone = converges(host.pool, name="san", state=state)
    assert "remove its secret" in gone["plan"][-1]["summary"]
    assert files(host) == {}


def test_one_that_another_pool_names_stays(host):
    done(host.pool(**declared("one", secret_usage="shared")))
    other = declared("two", None, secret_usage="shared")
    other["source"]["iqn"] = "iqn.2026-01.test:other"
    done(host.pool(**other))
    done(host.pool(name="one", state="absent"))
    assert len(files(host)) == 2
    done(host.pool(name="two", state="absent"))
    assert files(host) == {}


def test_one_that_a_guest_names_stays(host):
    done(host.pool(**declared("one", secret_usage="shared")))
    guest = Path(host.root) / "etc/libvirt/qemu/web.xml"
    guest.parent.mkdir(parents=True)
    disk = "<disk><auth username='u'><secret type='iscsi' usage='shared'/></auth><source protocol='iscsi'/></disk>"
    guest.write_text(f"<domain><name>web</name><devices>{disk}</devices></domain>")
    done(host.pool(name="one", state="absent"))
    assert len(files(host)) == 2


def test_who_names_it_is_asked_only_where_it_may_go(host, monkeypatch):
    asked = []
    done(host.pool(**declared("san")))
    monkeypatch.setattr(native.NativeEngine, "_guests", lambda self: asked.append(1) or ((), ()))
    assert host.pool_info(name="san")
    assert asked == []
    done(host.pool(name="san", state="absent"))
    assert asked


def test_one_that_somebody_else_made_is_adopted_and_stays(host):
    uuid = "5b7a9c1e-0d3f-4a68-8c2b-7e5d1f9a3c60"
    directory = Path(host.root) / "etc/libvirt/secrets"
    directory.mkdir(parents=True)
    usage = "<usage type='iscsi'><target>san</target></usage>"
    (directory / f"{uuid}.xml").write_text(f"<secret ephemeral='no' private='no'><uuid>{uuid}</uuid>{usage}</secret>")
    (directory / f"{uuid}.base64").write_text(base64.b64encode(OTHER.encode()).decode() + "\n")
    before = (directory / f"{uuid}.xml").read_bytes()
    same = done(host.pool(**declared("san", OTHER, secret_usage="san")))
    assert [entry["action"] for entry in same["plan"]] == ["define"]
    made = converges(host.pool, **declared("san", WORD, secret_usage="san"))
    assert [entry["action"] for entry in made["plan"]] == ["secret"]
    assert (directory / f"{uuid}.xml").read_bytes() == before
    done(host.pool(name="san", state="absent"))
    assert set(files(host)) == {f"{uuid}.xml", f"{uuid}.base64"}


def test_the_definition_keeps_its_name_of_the_secret(host):
    done(host.pool(**declared("san", None, secret_usage="mine")))
    made = converges(host.pool, **declared("san"))
    assert [entry["action"] for entry in made["plan"]] == ["secret"]


def test_another_name_of_it_leaves_no_other_behind(host):
    done(host.pool(**declared("san")))
    made = converges(host.pool, **declared("san", secret_usage="shared"))
    assert [entry["action"] for entry in made["plan"]] == ["redefine", "secret"]
    (text,) = (text for name, text in files(host).items() if name.endswith(".xml"))
    assert b"<target>shared</target>" in text
    assert len(files(host)) == 2


def test_another_uuid_of_it_leaves_no_other_behind(host):
    done(host.pool(**declared("san")))
    converges(host.pool, **declared("san", secret_uuid=UUID))
    assert set(files(host)) == {f"{UUID}.xml", f"{UUID}.base64"}


@pytest.mark.parametrize("state", ["present", "absent"])
def test_one_that_the_definition_does_not_name_any_more_goes(host, state):
    """It was changed by hand, or the task that changed it was ended before it came to the secret."""
    done(host.pool(**declared("san")))
    definition = Path(host.root) / "etc/libvirt/storage/san.xml"
    definition.write_text(definition.read_text().replace(f"usage='{OWN.format('san')}'", f"uuid='{UUID}'"))
    put(host, "<usage type='iscsi'><target>san</target></usage>", base64.b64encode(b"theirs"))
    gone = converges(host.pool, name="san", state=state)
    assert "remove its secret" in gone["plan"][-1]["summary"]
    assert set(files(host)) == {f"{UUID}.xml", f"{UUID}.base64"}


@pytest.mark.parametrize("what", ["guest", "pool"])
def test_one_that_may_be_named_where_nobody_can_look_stays(host, what):
    done(host.pool(**declared("san")))
    bad = Path(host.root) / {"guest": "etc/libvirt/qemu/web.xml", "pool": "etc/libvirt/storage/other.xml"}[what]
    bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_text("<domain>")
    gone = done(host.pool(name="san", state="absent"))
    assert len(files(host)) == 2
    assert any(bad.stem in warning and "is kept" in warning for warning in gone["warnings"])


def test_what_a_killed_task_left_of_a_value_goes(host):
    """The value is written under another name where there is one already."""
    done(host.pool(**declared("san")))
    (value,) = (Path(host.root) / "etc/libvirt/secrets").glob("*.base64")
    left = Path(f"{value}.new")
    left.write_text("half of it")
    converges(host.pool, **declared("san"))
    assert not left.exists()
    left.write_text("half of it")
    done(host.pool(name="san", state="absent"))
    assert files(host) == {}


def test_a_value_without_its_object_goes_with_the_definition(host):
    done(host.pool(**declared("san")))
    for path in (Path(host.root) / "etc/libvirt/secrets").glob("*.xml"):
        path.unlink()
    done(host.pool(name="san", state="absent"))
    assert files(host) == {}


def test_a_new_value_has_no_name_until_it_is_whole(host, monkeypatch):
    """So that who is killed leaves nothing of it."""
    seen = []
    fsync = os.fsync

    def look(descriptor):
        seen.append(sorted(files(host)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    done(host.pool(**declared("san")))
    assert not any(name.endswith(".base64.new") for names in seen for name in names)


def test_a_task_that_was_ended_before_is_completed(host):
    """The definition comes first, then the value, then the object: what lacks the last is made again."""
    done(host.pool(**declared("san")))
    for path in (Path(host.root) / "etc/libvirt/secrets").glob("*.xml"):
        path.unlink()
    converges(host.pool, **declared("san"))
    assert len(files(host)) == 2


# -- in options that others have written -----------------------------------------------------------------------------

FS = "http://libvirt.org/schemas/storagepool/fs/1.0"
RBD = "http://libvirt.org/schemas/storagepool/rbd/1.0"
HIDDEN = "s3cret"
# A definition of each type, and what the record shows of its options.
WRITTEN = {
    "netfs": (
        f"""<pool type='netfs' xmlns:fs='{FS}'><name>NAME</name><uuid>{UUID}</uuid>
<source><host name='127.0.0.1'/><dir path='pub'/><format type='cifs'/></source><target><path>DIR</path></target>
<fs:mount_opts><fs:option name='username=joe'/><fs:option name='ro,password=s3cret'/></fs:mount_opts></pool>""",
        {"mount_options": ["username=joe", "ro,password=(private)"]},
    ),
    "rbd": (
        f"""<pool type='rbd' xmlns:rbd='{RBD}'><name>NAME</name><uuid>{UUID}</uuid>
<source><host name='127.0.0.1' port='9'/><name>vms</name></source>
<rbd:config_opts><rbd:option name='key' value='AQs3cret=='/></rbd:config_opts></pool>""",
        {"config_options": {"key": "(private)"}},
    ),
}


def written(kind: str, name: str, directory: Path) -> str:
    return WRITTEN[kind][0].replace("NAME", name).replace("DIR", str(directory))


@pytest.fixture(params=WRITTEN)
def adopted(request: pytest.FixtureRequest, host: Any, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The definition of the pool p, and what is to be shown of it."""
    path = Path(host.root) / "etc/libvirt/storage/p.xml"
    path.parent.mkdir(parents=True)
    path.write_text(written(request.param, "p", tmp_path / "mnt"))
    return path, WRITTEN[request.param][1]


def shows_only(result: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    record = quiet(result, HIDDEN)["pool"]
    assert {name: record[name] for name in shown} == shown
    return result


def test_what_a_definition_holds_is_not_shown(host, adopted):
    path, shown = adopted
    before = path.read_bytes()
    (record,) = host.pool_info(name="p", xml=True)
    assert HIDDEN not in repr(record)
    assert "(private)" in record["xml"]
    shows_only(unchanged(host.pool(name="p", state="present")), shown)
    made = shows_only(converges(host.pool, name="p", state="present", autostart=True), shown)
    assert [entry["action"] for entry in made["plan"]] == ["autostart"]
    assert path.read_bytes() == before
    gone = quiet(done(host.pool(check=True, name="p", state="absent")), HIDDEN)
    assert "(private)" in gone["diff"]["before"]
    quiet(done(host.pool(name="p", state="absent")), HIDDEN)


def test_what_a_definition_holds_stays_when_it_is_changed(host, adopted):
    path, shown = adopted
    made = shows_only(converges(host.pool, name="p", state="present", source={"vendor": "somebody"}), shown)
    assert [entry["action"] for entry in made["plan"]] == ["redefine"]
    assert path.read_text().count(HIDDEN) == 1
    assert "(private)" not in path.read_text()
    (option,) = shown
    gone = quiet(converges(host.pool, name="p", state="present", **{option: type(shown[option])()}), HIDDEN)
    assert f"change {option}" in gone["plan"][0]["summary"]
    assert "(private)" in gone["diff"]["before"]
    assert HIDDEN not in path.read_text()


def test_what_is_shown_can_not_be_declared(host, adopted):
    path, shown = adopted
    before = path.read_bytes()
    refused = host.pool(name="p", state="present", **shown)
    assert (refused["error"]["code"], "source.auth" in refused["error"]["hint"]) == ("invalid_option", True)
    assert path.read_bytes() == before


TOOL = """#!/bin/sh
printf '%s\\n' "$@" > "$0.words"
for word in $(echo "$4" | tr , ' '); do
    case $word in credentials=*) cat "${word#*=}" > "$0.told";; esac
done
echo "mount error(13): $*" >&2
exit 32
"""


def test_a_password_in_a_definition_is_told_mount_in_private(host, tmp_path, monkeypatch):
    """The kernel here need not have CIFS: mount(8) is a script that fails."""
    from ansible_collections.virt.storage.plugins.module_utils.host import kernel

    monkeypatch.setattr(kernel, "has", lambda name, module: True)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("mount", "mount.cifs"):
        (tools / tool).write_text(TOOL)
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    path = Path(host.root) / "etc/libvirt/storage/p.xml"
    path.parent.mkdir(parents=True)
    path.write_text(written("netfs", "p", tmp_path / "mnt"))
    checked = quiet(done(host.pool(check=True, name="p")), HIDDEN)
    failed = quiet(host.pool(name="p"), HIDDEN)
    assert failed["error"]["code"] == "command_failed"
    assert checked["plan"] == failed["plan"]
    assert (tools / "mount.told").read_text() == "password=s3cret\n"
    words = (tools / "mount.words").read_text()
    assert "username=joe,ro" in words
    assert HIDDEN not in words


# -- through a daemon ---------------------------------------------------------------------------------------------

pytest_daemon = [pytest.mark.root, pytest.mark.libvirt_binding, pytest.mark.xdist_group("daemon")]


def through_a_daemon(test: Any) -> Any:
    for mark in pytest_daemon:
        test = mark(test)
    return test


def kept_value(daemon: Any, uuid: str) -> bytes:
    return base64.b64decode((daemon.files / "etc/libvirt/secrets" / f"{uuid}.base64").read_bytes())


@through_a_daemon
def test_the_daemon_gets_the_object(daemon, daemon_host):
    name = daemon_host.name
    made = converges(daemon_host.pool, **declared(name))
    assert [entry["action"] for entry in made["plan"]] == ["define", "secret"]
    (uuid,) = daemon.secrets()
    text = daemon.secret("secret-dumpxml", uuid)
    assert "private='yes'" in text
    assert OWN.format(name) in text
    assert kept_value(daemon, uuid).decode() == WORD
    other = converges(daemon_host.pool, **declared(name, OTHER))
    assert [entry["action"] for entry in other["plan"]] == ["secret"]
    assert kept_value(daemon, uuid).decode() == OTHER
    gone = converges(daemon_host.pool, name=name, state="absent")
    assert "remove its secret" in gone["plan"][-1]["summary"]
    assert daemon.secrets() == []


@through_a_daemon
def test_a_connection_to_the_storage_driver_alone(daemon, daemon_host):
    """It has no secrets: those are asked for by one to theirs."""
    daemon_host.uri = daemon.uri.replace("qemu:", "storage:")
    name = daemon_host.name
    assert [entry["action"] for entry in converges(daemon_host.pool, **declared(name))["plan"]] == ["define", "secret"]
    assert len(daemon.secrets()) == 1
    gone = done(daemon_host.pool(name=name, state="absent"))  # nor guests, of which one may name it
    assert "is kept" in str(gone["warnings"])
    assert len(daemon.secrets()) == 1


@through_a_daemon
def test_another_name_through_the_daemon(daemon, daemon_host):
    done(daemon_host.pool(**declared(daemon_host.name)))
    converges(daemon_host.pool, **declared(daemon_host.name, secret_usage="shared"))
    (uuid,) = daemon.secrets()
    assert "<target>shared</target>" in daemon.secret("secret-dumpxml", uuid)


@through_a_daemon
def test_check_mode_makes_no_object(daemon, daemon_host):
    done(daemon_host.pool(check=True, **declared(daemon_host.name)))
    assert daemon.secrets() == []


@through_a_daemon
def test_no_argument_of_a_command_and_no_log_has_it(daemon, daemon_host):
    done(daemon_host.pool(**declared(daemon_host.name)))
    assert WORD not in daemon.log.read_text(errors="replace")


@through_a_daemon
def test_a_key_of_ceph_through_the_daemon(daemon, daemon_host):
    converges(daemon_host.pool, **of_ceph(daemon_host.name))
    (uuid,) = daemon.secrets()
    assert kept_value(daemon, uuid) == base64.b64decode(KEY)


@through_a_daemon
@pytest.mark.parametrize("private", ["yes", "no"])
def test_an_object_of_somebody_else_is_adopted(daemon, daemon_host, tmp_path, private):
    text = tmp_path / "secret.xml"
    text.write_text(
        f"<secret ephemeral='no' private='{private}'><usage type='iscsi'><target>theirs</target></usage></secret>"
    )
    daemon.secret("secret-define", text)
    (uuid,) = daemon.secrets()
    word = tmp_path / "word"
    word.write_text(OTHER)
    daemon.secret("secret-set-value", uuid, "--file", word, "--plain")
    same = done(daemon_host.pool(**declared(daemon_host.name, OTHER, secret_usage="theirs")))
    assert [entry["action"] for entry in same["plan"]] == ["define"]
    converges(daemon_host.pool, **declared(daemon_host.name, WORD, secret_usage="theirs"))
    assert kept_value(daemon, uuid).decode() == WORD
    done(daemon_host.pool(name=daemon_host.name, state="absent"))
    assert daemon.secrets() == [uuid]


@through_a_daemon
def test_a_private_one_of_another_host_is_set_only_when_the_pool_starts(daemon, daemon_host, monkeypatch):
    """Nobody can say whether it is another one: a task that does nothing else claims nothing of it."""
    from ansible_collections.virt.storage.plugins.module_utils.host import peers

    done(daemon_host.pool(**declared(daemon_host.name)))
    (uuid,) = daemon.secrets()
    monkeypatch.setattr(peers, "daemon_process", lambda uri: None)
    unchanged(daemon_host.pool(**declared(daemon_host.name, OTHER)))
    checked = done(daemon_host.pool(check=True, **{**declared(daemon_host.name, OTHER), "state": "active"}))
    assert [entry["action"] for entry in checked["plan"]] == ["secret", "start"]
    assert "can't be read" in checked["diff"]["before"]
    tried = quiet(daemon_host.pool(**{**declared(daemon_host.name, OTHER), "state": "active"}))
    assert tried["failed"]  # nobody listens there
    assert kept_value(daemon, uuid).decode() == OTHER


@through_a_daemon
def test_a_daemon_that_starts_later_takes_it_over(daemon, native_host, daemon_host):
    daemon.stop()
    done(native_host.pool(**declared(daemon_host.name)))
    daemon.start()
    (uuid,) = daemon.secrets()
    assert OWN.format(daemon_host.name) in daemon.secret("secret-dumpxml", uuid)
    unchanged(daemon_host.pool(**declared(daemon_host.name)))
    made = done(daemon_host.pool(**declared(daemon_host.name, OTHER)))
    assert [entry["action"] for entry in made["plan"]] == ["secret"]
    daemon.stop()
    unchanged(native_host.pool(**declared(daemon_host.name, OTHER)))
    done(native_host.pool(name=daemon_host.name, state="absent"))
    daemon.start()
    assert daemon.secrets() == []
    assert os.listdir(daemon.files / "etc/libvirt/secrets") == []


@through_a_daemon
@pytest.mark.parametrize("kind", WRITTEN)
def test_what_a_definition_of_the_daemon_holds_is_not_shown(daemon, daemon_host, tmp_path, kind):
    name, shown, text = daemon_host.name, WRITTEN[kind][1], tmp_path / "pool.xml"
    text.write_text(written(kind, name, tmp_path / "mnt"))
    daemon.virsh("pool-define", text)
    (record,) = daemon_host.pool_info(name=name, xml=True)
    assert HIDDEN not in repr(record)
    assert "(private)" in record["xml"]
    made = shows_only(converges(daemon_host.pool, name=name, state="present", source={"vendor": "somebody"}), shown)
    assert "(private)" in made["plan"][0]["commands"][0]
    assert daemon.virsh("pool-dumpxml", "--inactive", name).count(HIDDEN) == 1
    if kind == "netfs":
        failed = quiet(daemon_host.pool(name=name), HIDDEN)  # its message has the whole command
        assert (failed["error"]["code"], "(private)" in failed["msg"]) == ("daemon_failed", True)
    gone = quiet(converges(daemon_host.pool, name=name, state="absent"), HIDDEN)
    assert "(private)" in gone["diff"]["before"]
