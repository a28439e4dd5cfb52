# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image headers: what they say, compared with qemu-img and with headers made by hand; and any bytes at all."""

from __future__ import annotations

import os
import random
import struct
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.images import headers
from ansible_collections.virt.storage.plugins.module_utils.images.headers import ImageHeader
from ansible_collections.virt.storage.plugins.module_utils.model.types import FILE_FORMATS

MIB = 2**20
FEATURE_NAMES = 0x6803F857
BACKING_FORMAT = 0xE2792ACA
DATA_FILE = 0x44415441


def read(content, size=None, declared=None):
    """The header of a file with this content; one that is longer ends in a hole."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        if size is not None:
            file.truncate(size)
        return headers.read_header(file.fileno(), os.fstat(file.fileno()).st_size, declared)


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def qcow2(
    version=3, backing=b"", extensions=(), bits=16, size=10 * MIB, crypt=0, l1=1, incompatible=0, compatible=0,
    header_length=112, backing_offset=None, backing_length=None, magic=b"QFI\xfb", l1_offset=0x30000, refcounts=0x10000,
    snapshots=0, autoclear=0, order=4,
):  # fmt: skip
    """A qcow2 header by docs/interop/qcow2.txt, with its backing name behind the extensions."""
    length = header_length if version == 3 else 72
    tail = b"".join(extensions) + bytes(8)
    offset = (length + len(tail) if backing else 0) if backing_offset is None else backing_offset
    count = len(backing) if backing_length is None else backing_length
    head = magic + struct.pack(">IQIIQ", version, offset, count, bits, size)
    head += struct.pack(">IIQQIIQ", crypt, l1, l1_offset, refcounts, 1, snapshots, 0)
    if version == 3:
        head += struct.pack(">QQQII", incompatible, compatible, autoclear, order, header_length)
        head = head.ljust(header_length, b"\0")
    return head + tail + backing


def vmdk_sparse(sectors=20480, text=b"", version=1, descriptor=1):
    head = b"KDMV" + struct.pack("<IIQQQQ", version, 3, sectors, 128, descriptor, 20)
    return head.ljust(512, b"\0") + text


DESCRIPTOR = b"""# Disk DescriptorFile
version=1
CID=7043b47a
parentCID=ffffffff
createType="twoGbMaxExtentFlat"
%s
RW 4192256 FLAT "a disk-f001.vmdk" 0
RW 64 FLAT "a disk-f002.vmdk" 0
"""
LUKS = b"LUKS\xba\xbe\x00\x01".ljust(104, b"\0") + struct.pack(">I", 4096) + bytes(400)
VPC = b"conectix" + struct.pack(">IIQ", 2, 0x10000, 512) + bytes(16) + struct.pack(">QQ", 7 * MIB, 7 * MIB) + bytes(960)
VDI = b"<<< an image >>>".ljust(64, b"\0") + struct.pack("<II296xQ", 0xBEDA107F, 0x10001, 9 * MIB)
PLOOP = b"WithouFreSpacExt" + struct.pack("<IIIIIQ", 2, 16, 0, 2048, 0, 10240) + bytes(64)
COW = b"OOOM" + struct.pack(">I", 2) + b"base.img".ljust(1024, b"\0") + struct.pack(">IQI", 0, 3 * MIB, 512)
QCOW = b"QFI\xfb" + struct.pack(">IQIIQBBHIQ", 1, 48, 5, 0, 4 * MIB, 12, 9, 0, 1, 0) + b"b.img"
QED = b"QED\0" + struct.pack("<IIIQQQQQII", 65536, 4, 1, 0b111, 0, 0, 65536, 6 * MIB, 64, 5) + b"b.img"
ISO = bytes(32769) + b"CD001" + bytes(2048)

NAMES_TABLE = extension(FEATURE_NAMES, bytes(384))

EVERY_FORMAT = {
    "qcow2": qcow2(backing=b"/p/base", extensions=[NAMES_TABLE, extension(BACKING_FORMAT, b"raw")]),
    "qcow2 v2": qcow2(version=2, backing=b"base", extensions=[extension(BACKING_FORMAT, b"qcow2")]),
    "qcow2 data file": qcow2(incompatible=4, extensions=[extension(DATA_FILE, b"/p/data")]),
    "vmdk": vmdk_sparse(text=DESCRIPTOR % b'parentFileNameHint="base.vmdk"'),
    "vmdk described": vmdk_sparse(0, text=DESCRIPTOR % b""),
    "vmdk text": DESCRIPTOR % b'parentFileNameHint="base.vmdk"',
    "vmdk cowd": b"COWD" + struct.pack("<III", 1, 3, 4096) + bytes(600),
    "luks": LUKS, "vpc": VPC, "vdi": VDI, "ploop": PLOOP, "cow": COW, "qcow": QCOW, "qed": QED, "iso": ISO,
    "vhdx": b"vhdxfile" + bytes(600),
}  # fmt: skip


# Headers made by hand.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ImageHeader("raw", 0)),
        (bytes(5 * MIB), ImageHeader("raw", 5 * MIB)),
        (LUKS.ljust(3 * MIB, b"\0"), ImageHeader("raw", MIB, encrypted=True)),
        (b"LUKS\xba\xbe\x00\x02".ljust(3 * MIB, b"\0"), ImageHeader("raw", 3 * MIB, encrypted=True)),
        (VPC, ImageHeader("vpc", 7 * MIB)),
        (VDI, ImageHeader("vdi", 9 * MIB)),
        (PLOOP, ImageHeader("ploop", 5 * MIB)),
        (COW, ImageHeader("cow", 3 * MIB, backing_path="base.img")),
        (QCOW, ImageHeader("qcow", 4 * MIB, backing_path="b.img", encrypted=True)),
        (QED, ImageHeader("qed", 6 * MIB, backing_path="b.img", backing_format="raw", dirty=True)),
        (ISO, ImageHeader("iso", len(ISO))),
        (vmdk_sparse(), ImageHeader("vmdk", 10 * MIB)),
        (EVERY_FORMAT["vmdk"], ImageHeader("vmdk", 10 * MIB, backing_path="base.vmdk")),
        (EVERY_FORMAT["vmdk cowd"], ImageHeader("vmdk", 2 * MIB)),
        (EVERY_FORMAT["vmdk described"], ImageHeader("vmdk", 4192320 * 512, data_file="a disk-f001.vmdk")),
        (
            EVERY_FORMAT["vmdk text"],
            ImageHeader("vmdk", 4192320 * 512, backing_path="base.vmdk", data_file="a disk-f001.vmdk"),
        ),
    ],
    ids=lambda value: value.format if isinstance(value, ImageHeader) else "",
)
def test_formats(content, expected):
    assert read(content) == expected


def test_qcow2_in_full():
    made = qcow2(
        backing=b"/p/b\xff", crypt=2, bits=14, l1=5, incompatible=0b10111, compatible=1,
        extensions=[NAMES_TABLE, extension(DATA_FILE, b"d.raw"), extension(BACKING_FORMAT, b"vmdk")],
    )  # fmt: skip
    assert read(made, MIB) == ImageHeader(
        "qcow2", 10 * MIB, "/p/b\udcff", "vmdk", "1.1", 16384, True, True, True, "d.raw", True, True, ""
    )
    assert read(qcow2(version=2), MIB) == ImageHeader("qcow2", 10 * MIB, None, None, "0.10", 65536, False, False)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"snapshots": 2}, "snapshot"),
        ({"autoclear": 1}, "bitmap"),
        ({"incompatible": 8}, "compression"),
        ({"order": 0}, "refcounts"),
        ({"order": 2**32 - 1}, "refcounts"),
    ],
)
def test_what_an_image_of_compat_0_10_can_not_have(more, told):
    header = read(qcow2(**more), MIB)
    assert header.snapshots == more.get("snapshots", 0)
    (what,) = header.beyond_0_10
    assert told in what
    assert read(qcow2(version=2, snapshots=3), MIB)[-2:] == (3, ())


def test_a_data_file_without_a_name_is_one_and_a_name_without_the_bit_is_none():
    assert read(qcow2(incompatible=4), MIB).data_file == ""
    assert read(qcow2(extensions=[extension(DATA_FILE, b"/x")]), MIB).data_file is None


def test_names_beyond_the_first_block_are_read():
    name = b"/" + b"n" * 1022
    header = read(qcow2(backing=name, extensions=[extension(1, bytes(40000)), extension(BACKING_FORMAT, b"qed")]), MIB)
    assert (header.backing_path, header.backing_format, header.problem) == (name.decode(), "qed", "")


def test_extensions_are_padded_to_eight_bytes():
    header = read(qcow2(backing=b"b", extensions=[extension(1, b"123"), extension(BACKING_FORMAT, b"raw")]), MIB)
    assert (header.backing_format, header.problem) == ("raw", "")


@pytest.mark.parametrize("content", [content for name, content in EVERY_FORMAT.items() if name != "luks"])
def test_declared_raw_is_raw_whatever_is_in_it(content):
    assert read(content).format != "raw" or read(content).problem
    assert read(content, declared="raw") == ImageHeader("raw", len(content))


MALFORMED = {
    "cut off v2": (qcow2(version=2)[:71], "cut off"),
    "cut off v3": (qcow2()[:103], "cut off"),
    "no tables": (qcow2(), "cut off"),
    "small clusters": (qcow2(bits=8), "cluster size"),
    "large clusters": (qcow2(bits=22), "cluster size"),
    "absurd clusters": (qcow2(bits=2**32 - 1), "cluster size"),
    "long backing name": (qcow2(backing=b"n" * 1024), "1024 bytes long"),
    "longer backing name": (qcow2(backing=b"n", backing_length=2**32 - 1), "bytes long"),
    "far backing name": (qcow2(backing=b"n", backing_offset=2**63), "outside of the header"),
    "backing name past the cluster": (qcow2(backing=b"nn", backing_offset=65535), "outside of the header"),
    "NUL in backing name": (qcow2(backing=b"/a\0b"), "NUL"),
    "large extension": (qcow2(extensions=[struct.pack(">II", 5, 2**32 - 1)]), "larger than the header"),
    "long format": (qcow2(backing=b"b", extensions=[extension(BACKING_FORMAT, b"f" * 16)]), "format is too long"),
    "long data file": (qcow2(incompatible=4, extensions=[extension(DATA_FILE, b"f" * 4097)]), "data file is too long"),
    "many extensions": (qcow2(extensions=[extension(5, b"")] * 70), "more than 64 extensions"),
    "short header length": (qcow2(header_length=96), "header length 96"),
    "long header length": (qcow2(bits=9, header_length=1024), "header length 1024"),
    "unknown feature": (qcow2(incompatible=32), "0x20 are not known"),
    "unknown encryption": (qcow2(crypt=3), "encryption method 3"),
    "extended L2 in small clusters": (qcow2(bits=13, incompatible=16), "at least 16 KiB"),
    "small L1": (qcow2(l1=1, size=2**40), "too small"),
    "small L1 of extended entries": (qcow2(l1=1, size=256 * MIB + 1, incompatible=16), "too small"),
    "immense without clusters": (qcow2(size=2**63, bits=0), "cluster size"),
    "large L1": (qcow2(l1=2**22 + 1), "32 MiB"),
    "immense": (qcow2(size=2**64 - 1, l1=2**22), "too small"),
    "no qcow2 of version 4": (qcow2(version=4), "version 4"),
    "no version": (b"QFI\xfb\0\0", "ends before its version"),
    "fourth byte": (qcow2(magic=b"QFIx"), "magic"),
    "qed features": (QED[:16] + b"\x08" + QED[17:], "features 0x8"),
    "qed fourth byte": (b"QEDx" + QED[4:], "magic"),
    "qed backing": (QED[:56] + struct.pack("<II", 2**32 - 1, 5) + QED[64:], "outside"),
    "qcow backing": (QCOW[:8] + struct.pack(">Q", 2**63 + 5) + QCOW[16:], "outside"),
    "vmdk version": (vmdk_sparse(version=4), "version 4"),
    "vmdk parent": (vmdk_sparse(text=DESCRIPTOR % b'parentFileNameHint="no end'.replace(b'"', b"")), "parent"),
    "vmdk descriptor": (vmdk_sparse(0, descriptor=2**64 - 1), "beyond the end"),
    "vmdk size": (vmdk_sparse(2**64 - 1), "more than any disk"),
    "vmdk extent": (b"# Disk DescriptorFile\nRW " + b"9" * 9000 + b' FLAT "x"\n', "no size"),
    "vmdk no extent": (b"# Disk DescriptorFile\n", "no extent"),
    "vpc version": (VPC[:12] + b"\0" + b"\x02" + VPC[14:], "version"),
    "vpc differencing": (VPC[:60] + struct.pack(">I", 4) + VPC[64:], "differencing"),
    "vdi version": (VDI[:68] + b"\x02" + VDI[69:], "version"),
    "cow version": (b"OOOM" + struct.pack(">I", 3), "version 3"),
    "cow name": (COW[:8] + b"n" * 1024 + COW[1032:], "no end"),
    "luks payload": (LUKS, "cut off"),
    "luks version": (b"LUKS\xba\xbe\x00\x03", "version 3"),
    "vhdx": (EVERY_FORMAT["vhdx"], "vhdx"),
}

CUT_OFF = ("cut off v2", "cut off v3", "no tables", "no version", "luks payload")


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    content, problem = MALFORMED[name]
    header = read(content, None if name in CUT_OFF else max(len(content), MIB))
    assert problem in header.problem
    check_bounds(header, MIB)


def test_an_l1_table_that_just_reaches():
    assert read(qcow2(l1=1, size=512 * MIB), MIB).problem == ""
    assert read(qcow2(l1=1, size=256 * MIB, incompatible=16), MIB).problem == ""


def test_the_tables_of_a_whole_file_are_no_problem():
    assert read(qcow2(), MIB).problem == ""


# Any bytes at all.


def check_bounds(header, size):
    assert header.format in FILE_FORMATS
    assert 0 <= header.capacity < 2**63
    for text, limit in ((header.backing_path, 1023), (header.backing_format, 15), (header.data_file, 4096)):
        if text is not None:
            assert len(os.fsencode(text)) <= limit
            assert "\0" not in text
    assert header.backing_path != ""
    assert header.cluster_size is None or header.cluster_size in [2**bits for bits in range(9, 22)]
    assert header.backing_format is None or header.backing_path is not None
    assert header.compat in ((None, "0.10", "1.1") if header.format == "qcow2" else (None,))
    assert all((value is None) == (header.compat is None) for value in (header.lazy_refcounts, header.extended_l2))


def check_any(content, size=None):
    """Reads it while counting what is read of the file."""
    reads = []

    def counted(fd, length, offset):
        reads.append(length)
        return os_pread(fd, length, offset)

    os_pread, os.pread = os.pread, counted
    try:
        header = read(content, size)
    finally:
        os.pread = os_pread
    check_bounds(header, len(content) if size is None else size)
    assert len(reads) <= 2 * 64 + 3
    assert sum(reads) <= 64 * 4096 + 32 * 1024


@given(st.binary(max_size=2048))
def test_random_bytes(content):
    check_any(content)


@given(st.sampled_from(sorted({content[:8] for content in EVERY_FORMAT.values()})), st.binary(max_size=2048))
def test_random_bytes_after_a_magic_number(magic, content):
    check_any(magic + content)


CHANGE = st.tuples(st.integers(0, 700), st.sampled_from([0, 1, 2, 4, 9, 16, 21, 64, 127, 128, 254, 255]))


@settings(max_examples=1000)
@given(
    st.sampled_from(sorted(EVERY_FORMAT)),
    st.lists(CHANGE, max_size=6),
    st.one_of(st.none(), st.integers(0, 1200)),
    st.sampled_from([None, 513, 5 * MIB]),
)
def test_damaged_headers(name, changes, end, size):
    content = bytearray(EVERY_FORMAT[name])
    for offset, value in changes:
        if offset < len(content):
            content[offset] = value
    content = bytes(content[:end])
    check_any(content, None if size is None else max(size, len(content)))


# Beside qemu-img.

NAMES = {"parallels": "ploop"}


def shown(name):
    """A name as JSON shows it, where bytes that are not UTF-8 are lost."""
    return name if name is None else os.fsencode(name).decode(errors="replace")


def check_same(qemu_img, path, driver=None):
    """Everything that qemu-img tells too is the same."""
    told = qemu_img.info(path, driver)
    header, _identity = headers.open_header(str(path))
    assert told is not None, header
    data = told.get("format-specific", {}).get("data", {})
    assert header.problem == ""
    assert header.format == NAMES.get(told["format"], told["format"])
    assert header.capacity // 512 * 512 == told["virtual-size"]  # libvirt doesn't round down, QEMU does
    assert shown(header.backing_path) == told.get("backing-filename")
    if told["format"] != "vmdk":  # qemu-img tells what it probed there
        assert header.backing_format == told.get("backing-filename-format")
    assert header.encrypted == told.get("encrypted", False)
    if header.format == "qcow2":
        assert header.cluster_size == told["cluster-size"]
        assert header.compat == data["compat"]
        assert header.lazy_refcounts == data.get("lazy-refcounts", False)
        assert header.extended_l2 == data.get("extended-l2", False)
        assert shown(header.data_file) == data.get("data-file")
        assert header.corrupt == data.get("corrupt", False)
        assert header.dirty == told["dirty-flag"]
    return header


OPTIONS = (
    "compat=0.10", "compat=1.1", "lazy_refcounts=on", "extended_l2=on", "preallocation=metadata", "refcount_bits=64",
    "compression_type=zstd",
)  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cluster_size", [None, 512, 16384, 2 * MIB])
@pytest.mark.parametrize("size", [0, 1000, 10 * MIB, 3 * 2**30])
def test_qcow2_options(qemu_img, tmp_path, options, cluster_size, size):
    if options == "extended_l2=on" and cluster_size == 512:
        cluster_size = 32768
    if options == "preallocation=metadata":
        size = min(size, MIB)
    more = f",cluster_size={cluster_size}" if cluster_size else ""
    qemu_img.make("create", "-q", "-f", "qcow2", "-o", options + more, tmp_path / "a", size)
    header = check_same(qemu_img, tmp_path / "a")
    assert header.cluster_size == (cluster_size or 65536)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("base_format", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize("name", ["base", "b,a=se", "b\u00e4se", "n" * 200])
def test_qcow2_backing(qemu_img, tmp_path, compat, base_format, name):
    qemu_img.make("create", "-q", "-f", base_format, tmp_path / name, MIB)
    argv = ["create", "-q", "-f", "qcow2", "-F", base_format, "-o", f"compat={compat}"]
    for backing in (name, tmp_path / name):
        qemu_img.make(*argv, "-b", backing, tmp_path / "over")
        header = check_same(qemu_img, tmp_path / "over")
        assert (header.backing_path, header.backing_format) == (str(backing), base_format)


def test_qcow2_data_file_and_encryption(qemu_img, tmp_path):
    qemu_img.make("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", tmp_path / "a", MIB)
    assert check_same(qemu_img, tmp_path / "a").data_file == f"{tmp_path}/data"
    # Not luks: qemu-img takes seconds to make one, and fails on a busy machine.
    options = "encrypt.format=aes,encrypt.key-secret=s"
    qemu_img.make("create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", options, tmp_path / "b", MIB)
    assert check_same(qemu_img, tmp_path / "b").encrypted


@pytest.mark.parametrize("driver", ["raw", "vdi", "vpc", "vmdk", "qcow", "qed", "parallels"])
@pytest.mark.parametrize("size", [MIB, 5 * 2**30])
def test_other_formats(qemu_img, tmp_path, driver, size):
    qemu_img.make("create", "-q", "-f", driver, tmp_path / "a", size)
    check_same(qemu_img, tmp_path / "a")


@pytest.mark.parametrize("subformat", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
                                       "twoGbMaxExtentFlat", "streamOptimized"])  # fmt: skip
def test_vmdk_subformats(qemu_img, tmp_path, subformat):
    qemu_img.make("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", tmp_path / "a.vmdk", 5 * 2**30)
    header = check_same(qemu_img, tmp_path / "a.vmdk")
    assert (header.data_file is None) == (subformat in ("monolithicSparse", "streamOptimized"))


@pytest.mark.parametrize("driver", ["qcow", "qed", "vmdk"])
def test_backing_of_other_formats(qemu_img, tmp_path, driver):
    base_format = "vmdk" if driver == "vmdk" else "raw"
    qemu_img.make("create", "-q", "-f", base_format, tmp_path / "base", MIB)
    qemu_img.make("create", "-q", "-f", driver, "-b", tmp_path / "base", "-F", base_format, tmp_path / "over")
    told = qemu_img.info(tmp_path / "over")
    header, _identity = headers.open_header(str(tmp_path / "over"))
    assert header.backing_path == told["backing-filename"] == str(tmp_path / "base")
    assert header.backing_format == ("raw" if driver == "qed" else None)


# What reads as zeros behind the end, or is merely more than we care to read, QEMU opens.
OPENED_BY_QEMU = ("cut off v2", "no tables", "NUL in backing name", "many extensions", "long data file")


@pytest.mark.parametrize(
    "name", [name for name in MALFORMED if MALFORMED[name][0][:3] in (b"QFI", b"QED") and name not in OPENED_BY_QEMU]
)
def test_what_is_malformed_to_us_is_to_qemu(qemu_img, tmp_path, name):
    """So that no image that works is called broken."""
    path = tmp_path / "a"
    path.write_bytes(MALFORMED[name][0])
    if name not in CUT_OFF:
        os.truncate(path, MIB)
    first = name.split()[0]
    assert qemu_img.info(path, first if first in ("qed", "qcow") else "qcow2") is None


def test_damage_beside_qemu_img(qemu_img, tmp_path):
    """Flips bytes of a real header: whatever qemu-img opens and we have no complaint about says the same to both."""
    qemu_img.make("create", "-q", "-f", "raw", tmp_path / "base", MIB)
    path = tmp_path / "over"
    qemu_img.make("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", path)
    whole = path.read_bytes()
    draw = random.Random(20)
    agreed = refused = 0
    for _round in range(150):
        content = bytearray(whole)
        for _change in range(draw.choice((1, 1, 2))):
            # The header, its extensions, and the backing name.
            offset = draw.choice((draw.randrange(4, 130), draw.randrange(500, 620)))
            content[offset] = draw.choice((0, 1, 2, 3, 16, 65, 255))
        path.write_bytes(content)
        told = qemu_img.info(path, "qcow2")
        header, _identity = headers.open_header(str(path))
        if told is None:
            refused += 1
        elif not header.problem and header.format == "qcow2":
            check_same(qemu_img, path, "qcow2")
            agreed += 1
    assert agreed >= 20
    assert refused >= 20


# Opening.


def test_open_header_takes_files_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(qcow2().ljust(MIB, b"\0"))
    header, identity = headers.open_header(str(tmp_path / "file"))
    state = os.stat(tmp_path / "file")
    assert (header.format, identity) == ("qcow2", (state.st_dev, state.st_ino))
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/null"):
        with pytest.raises(OSError, match="not a regular file"):
            headers.open_header(str(path))
    with pytest.raises(FileNotFoundError):
        headers.open_header(str(tmp_path / "none"))


def test_what_is_no_file_is_not_even_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    opened = []
    monkeypatch.setattr(os, "open", lambda *arguments: opened.append(arguments))
    with pytest.raises(OSError, match="not a regular file"):
        headers.open_header(str(tmp_path / "fifo"))
    assert opened == []


def test_open_header_leaves_no_descriptor(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    before = sorted(os.listdir("/proc/self/fd"))
    headers.open_header(str(tmp_path / "file"))
    assert sorted(os.listdir("/proc/self/fd")) == before
