# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Definitions of pools and volumes, made up from libvirt's documentation (formatstorage) and a seed, and what libvirt
makes of them; none of our code takes part.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

FS = "http://libvirt.org/schemas/storagepool/fs/1.0"
_PYTHON = "/usr/bin/python3"
_JUDGE = Path(__file__).with_name("xml_judge.py")
RBD = "http://libvirt.org/schemas/storagepool/rbd/1.0"
FILE_FORMATS = (
    "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2", "qed",
    "vmdk",
)  # fmt: skip
_FILESYSTEMS = (
    "auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2", "vfat", "hfs+", "xfs", "ocfs2", "vmfs",
)  # fmt: skip


for _prefix, _uri in (("fs", FS), ("rbd", RBD)):
    ElementTree.register_namespace(_prefix, _uri)


class Kind(NamedTuple):
    """What a type of pool takes: words that name a maker below, and formats of its source and of its volumes."""

    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    target: bool = True
    volume_formats: tuple[str, ...] = ()


KINDS = {
    "dir": Kind((), ("cow",), volume_formats=FILE_FORMATS),
    "fs": Kind(
        ("device",),
        ("cow", "mount_options"),
        (
            "auto",
            "ext2",
            "ext3",
            "ext4",
            "ufs",
            "iso9660",
            "udf",
            "gfs",
            "gfs2",
            "vfat",
            "hfs+",
            "xfs",
            "ocfs2",
            "vmfs",
        ),
        volume_formats=FILE_FORMATS,
    ),
    "netfs": Kind(
        ("host", "dir"),
        ("mount_options", "protocol"),
        ("auto", "nfs", "glusterfs", "cifs"),
        volume_formats=FILE_FORMATS,
    ),
    "logical": Kind(("name",), ("devices",), ("unknown", "lvm2")),
    "disk": Kind(
        ("separated_device",),
        (),
        ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2"),
        volume_formats=("linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended"),
    ),
    "iscsi": Kind(("host", "iqn"), ("initiator", "auth")),
    "iscsi-direct": Kind(("host", "iqn", "initiator"), ("auth",), target=False),
    "scsi": Kind(("adapter",)),
    "mpath": Kind(()),
    "rbd": Kind(("hosts", "name"), ("auth", "config_options", "refresh"), target=False, volume_formats=("raw",)),
    "sheepdog": Kind(("host", "name"), (), target=False),
    "gluster": Kind(("hosts", "name"), ("dir",), target=False, volume_formats=FILE_FORMATS),
    "zfs": Kind(("name",), ("devices",)),
    "vstorage": Kind(("name",), (), volume_formats=FILE_FORMATS),
}
_WORDS = ("a", "vg0", "x y", "ü-ß", "a&b", "<t>", "it's", 'say "x"', "n.1_2", "日本", "-dash", "pool=1")


class Maker:
    """Every choice comes from the one seed."""

    def __init__(self, seed: str):
        self.random = random.Random(seed)

    def maybe(self) -> bool:
        return self.random.random() < 0.5

    def one(self, *values):
        return self.random.choice(values)

    def word(self) -> str:
        return self.one(*_WORDS)

    def number(self, below: int) -> int:
        return self.random.randrange(below)

    def hexadecimal(self, digits: int) -> str:
        return "".join(self.one(*"0123456789abcdefABCDEF") for _digit in range(digits))

    def uuid(self) -> str:
        text = str(uuid.UUID(int=self.random.getrandbits(128)))
        return self.one(text, text.upper(), text.replace("-", ""), f" {text}\n")

    def path(self) -> str:
        parts = [self.word().strip("-") or "p" for _part in range(self.random.randint(1, 4))]
        return self.one("/", "/", "//", "///") + self.one("/", "//").join(parts) + self.one("", "", "/", "//")

    def shuffled(self, node: ElementTree.Element) -> ElementTree.Element:
        """Children of other tags in any order; those of one tag stay in theirs, since it counts."""
        groups: dict[str, list[ElementTree.Element]] = {}
        for child in node:
            groups.setdefault(child.tag, []).append(child)
        order = self.random.sample(list(groups), len(groups))
        node[:] = [child for tag in order for child in groups[tag]]
        return node


def add(parent: ElementTree.Element, tag: str, text: str | None = None, **attributes) -> ElementTree.Element:
    node = ElementTree.SubElement(parent, tag, {k: str(v) for k, v in attributes.items() if v is not None})
    node.text = text
    return node


# ---- pieces of a source


def host(make: Maker, source, pool) -> None:
    names = ("nas1", "192.0.2.7", "2001:db8::1", "srv.example.org", make.word())
    add(source, "host", name=make.one(*names), port=make.one(None, 0, 1, 3260, 65535))


def hosts(make: Maker, source, pool) -> None:
    for _host in range(make.random.randint(1, 3)):
        host(make, source, pool)


def device(make: Maker, source, pool) -> None:
    add(source, "device", path=make.path())


def separated_device(make: Maker, source, pool) -> None:
    add(source, "device", path=make.path(), part_separator=make.one(None, "yes", "no"))


def devices(make: Maker, source, pool) -> None:
    for _device in range(make.random.randint(1, 3)):
        device(make, source, pool)


def iqn(make: Maker, source, pool) -> None:
    add(source, "device", path=f"iqn.2026-01.org.example:{make.word()}")


def initiator(make: Maker, source, pool) -> None:
    add(add(source, "initiator"), "iqn", name=f"iqn.2026-02.org.example:{make.word()}")


def directory(make: Maker, source, pool) -> None:
    add(source, "dir", path=make.path())


def name(make: Maker, source, pool) -> None:
    add(source, "name", make.word())


def auth(make: Maker, source, pool) -> None:
    node = add(source, "auth", type=make.one("chap", "ceph"), username=make.word())
    add(node, "secret", **make.one({"uuid": make.uuid()}, {"usage": make.word()}))


def protocol(make: Maker, source, pool) -> None:
    for node in source.findall("format"):
        node.set("type", make.one("auto", "nfs"))
    add(source, "protocol", ver=make.one("3", "4.2", "4"))


def scsi_by_name(make: Maker, node) -> None:
    node.set("name", make.one("host1", "scsi_host22", "fc_host3", "host 4"))
    if make.maybe():
        node.set("type", "scsi_host")


def scsi_by_address(make: Maker, node) -> None:
    node.set("type", "scsi_host")
    parent = add(node, "parentaddr", unique_id=make.number(300))
    parts = {"domain": 0xFFFF, "bus": 0xFF, "slot": 0x1F, "function": 7}
    numbers = {part: make.number(limit + 1) for part, limit in parts.items()}
    add(parent, "address", **{part: make.one(hex, str)(number) for part, number in numbers.items()})


def fc_host(make: Maker, node) -> None:
    node.set("type", "fc_host")
    for attribute in ("wwnn", "wwpn"):
        node.set(attribute, make.one("", "0x") + make.hexadecimal(16))
    node.attrib.update(
        make.one(
            {},
            {"parent": make.one("scsi_host5", make.word())},
            {"parent_wwnn": make.hexadecimal(16), "parent_wwpn": "0x" + make.hexadecimal(16)},
            {"parent_fabric_wwn": make.hexadecimal(16)},
        )
    )
    node.attrib.update(make.one({}, {"managed": "yes"}, {"managed": "no"}))


def adapter(make: Maker, source, pool) -> None:
    make.one(scsi_by_name, scsi_by_address, fc_host)(make, add(source, "adapter"))


# ---- pieces of a pool


def cow(make: Maker, source, pool) -> None:
    add(add(pool, "features"), "cow", state=make.one("yes", "no"))


def mount_options(make: Maker, source, pool) -> None:
    block = add(pool, f"{{{FS}}}mount_opts")
    for option in make.random.sample(["ro", "vers=4.2", "noatime", "user_xattr", "a=b&c"], make.random.randint(1, 4)):
        add(block, f"{{{FS}}}option", name=option)


def config_options(make: Maker, source, pool) -> None:
    block = add(pool, f"{{{RBD}}}config_opts")
    for option in make.random.sample(["client_mount_timeout", "x", "a b"], make.random.randint(1, 3)):
        add(block, f"{{{RBD}}}option", name=option, value=make.one("30", "<1>", make.word()))


def refresh(make: Maker, source, pool) -> None:
    add(add(pool, "refresh"), "volume", allocation=make.one("default", "capacity"))


def permissions(make: Maker, parent) -> None:
    node = add(parent, "permissions")
    choices = {
        "mode": ("0755", "711", "0", "00644", "7", "0777"),
        "owner": ("0", "-1", "64055", " 5", "2147483647"),
        "group": ("0", "-1", "108"),
        "label": ("system_u:object_r:virt_image_t:s0", "a<b"),
    }
    for tag, values in choices.items():
        if make.maybe():
            add(node, tag, make.one(*values))
    make.shuffled(node)


_PIECES = {
    piece.__name__: piece
    for piece in (
        host, hosts, device, separated_device, devices, iqn, initiator, name, auth, protocol, adapter, cow,
        mount_options, config_options, refresh,
    )
}  # fmt: skip
_PIECES["dir"] = directory


def pool_element(kind: str, make: Maker) -> ElementTree.Element:
    row = KINDS[kind]
    pool = ElementTree.Element("pool", type=kind)
    add(pool, "name", f"p {make.word()}")
    add(pool, "uuid", make.uuid())
    source = ElementTree.Element("source")
    if row.formats and make.maybe():
        add(source, "format", type=make.one(*row.formats))
    for piece in (*row.needs, *(piece for piece in row.takes if make.maybe())):
        _PIECES[piece](make, source, pool)
    for tag in ("vendor", "product"):
        if make.maybe():
            add(source, tag, name=make.word())
    if len(source) or make.maybe():
        pool.append(make.shuffled(source))
    if row.target:
        target = add(pool, "target")
        add(target, "path", make.path())
        if make.maybe():
            permissions(make, target)
        make.shuffled(target)
    for tag in ("capacity", "allocation", "available"):
        if make.maybe():
            add(pool, tag, "0", unit="bytes")
    return make.shuffled(pool)


# ---- volumes


def sized(make: Maker, parent, tag: str) -> None:
    unit = make.one(None, "b", "bytes", "K", "KiB", "kb", "MB", "m")
    add(parent, tag, str(make.random.randint(1, 2000)), unit=unit)


def encryption(make: Maker, target) -> None:
    form = make.one("default", "qcow", "luks", "luks", "luks", "luks2")
    node = add(target, "encryption", format=form, engine=make.one(None, "qemu", "librbd"))
    for _secret in range(make.number(3)):
        add(node, "secret", type="passphrase", **make.one({"uuid": make.uuid()}, {"usage": make.word()}))
    if form != "luks" or make.maybe():
        return
    optional = {"mode": make.one(None, "cbc", "xts"), "hash": make.one(None, "sha256")}
    add(node, "cipher", name=make.one("aes", "serpent"), size=make.one(0, 128, 256, 2**32 - 1), **optional)
    if make.maybe():
        add(node, "ivgen", name=make.one("plain64", "essiv"), hash=make.one(None, "sha256"))
    make.shuffled(node)


def volume_element(kind: str, make: Maker) -> ElementTree.Element:
    formats = KINDS[kind].volume_formats
    volume = ElementTree.Element(
        "volume", {"type": make.one("file", "block", "network", "dir")} if make.maybe() else {}
    )
    add(volume, "name", f"v {make.word()}")
    sized(make, volume, "capacity")
    if make.maybe():
        sized(make, volume, "allocation")
    target = ElementTree.Element("target")
    if formats and make.maybe():
        add(target, "format", type=make.one(*formats))
    if make.maybe():
        permissions(make, target)
    if make.maybe():
        encryption(make, target)
    if make.maybe():
        add(target, "compat", make.one("0.10", "1.1", "2.0"))
    if make.maybe():
        sized(make, target, "clusterSize")
    if make.maybe():
        add(target, "nocow")
    if make.maybe():
        block = add(target, "features")
        for flag in ("lazy_refcounts", "extended_l2"):
            if make.maybe():
                add(block, flag)
    if len(target) or make.maybe():
        volume.append(make.shuffled(target))
    if make.maybe():
        backing = add(volume, "backingStore")
        add(backing, "path", make.path())
        if formats and make.maybe():
            add(backing, "format", type=make.one(*formats))
        if make.maybe():
            permissions(make, backing)
        make.shuffled(backing)
    return make.shuffled(volume)


# ---- cases

# The driver starts no pool whose adapter it does not have.
_SCSI = (
    "<pool type='scsi'><name>p</name><source><adapter name='host1'/></source><target><path>/dev</path></target></pool>"
)


class Case(NamedTuple):
    label: str
    kind: str
    pool: str
    volume: str | None = None

    def asked(self) -> dict[str, str]:
        return {"pool": self.pool} if self.volume is None else {"pool": self.pool, "volume": self.volume}


def text_of(make: Maker, root: ElementTree.Element) -> str:
    if make.maybe():
        ElementTree.indent(root, make.one("  ", "\t"))
    return ElementTree.tostring(root, encoding="unicode")


def pools(count: int) -> Iterator[Case]:
    """``count`` definitions of each type."""
    for kind in KINDS:
        for number in range(count):
            label = f"{kind} {number}"
            make = Maker(label)
            yield Case(label, kind, text_of(make, pool_element(kind, make)))


def volumes(count: int) -> Iterator[Case]:
    """``count`` volumes in a pool of each type."""
    for kind in KINDS:
        root = ElementTree.fromstring(_SCSI) if kind == "scsi" else pool_element(kind, Maker(kind))
        pool = ElementTree.tostring(root, encoding="unicode")
        for number in range(count):
            label = f"volume in {kind} {number}"
            make = Maker(label)
            yield Case(label, kind, pool, text_of(make, volume_element(kind, make)))


_JUNK = ("", "x", "-1", "0x10", " ", "no", "yes", "none", "/", "a/b", "18446744073709551616", "chap", "qcow2", "1.1")


def damaged(cases: Iterator[Case]) -> Iterator[Case]:
    """Each case with one thing wrong, or just different: an element or attribute gone, or with another value."""
    for case in cases:
        make = Maker(f"damaged {case.label}")
        root = ElementTree.fromstring(case.pool if case.volume is None else case.volume)
        nodes = [(parent, node) for parent in root.iter() for node in parent]
        parent, node = make.one(*nodes)
        damage = make.one("remove", "text", "attribute", "attribute", "unset")
        if damage == "remove" or (damage == "text" and len(node)) or (damage != "text" and not node.attrib):
            parent.remove(node)
        elif damage == "text":
            node.text = make.one(*_JUNK)
        elif damage == "attribute":
            node.set(make.one(*node.attrib), make.one(*_JUNK))
        else:
            del node.attrib[make.one(*node.attrib)]
        text = ElementTree.tostring(root, encoding="unicode")
        label = f"damaged {case.label}"
        yield case._replace(label=label, **({"pool": text} if case.volume is None else {"volume": text}))


# ---- the judge


class Judged(NamedTuple):
    case: Case
    shown: str
    refused: str


def has_binding() -> bool:
    try:
        return subprocess.run([_PYTHON, "-c", "import libvirt"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def judge(cases: Iterable[Case], uri: str = "test:///default") -> list[Judged]:
    """What a libvirt makes of all cases, in one child process."""
    listed = list(cases)
    lines = "".join(json.dumps(case.asked()) + "\n" for case in listed)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    argv = [_PYTHON, str(_JUDGE), uri]
    done = subprocess.run(argv, input=lines, capture_output=True, text=True, timeout=120, check=True, env=environment)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(listed), done.stderr
    return [Judged(case, answer.get("shown", ""), answer.get("refused", "")) for case, answer in zip(listed, answers)]
