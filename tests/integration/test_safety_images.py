# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What volumes are made from: nothing that an image merely says of itself lets another file in."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess

import pytest

from .crash_support import (
    CHECK,
    KIB,
    MIB,
    done,
    image_info,
    leftovers,
    qcow2,
    qemu_img,
    raw,
    refused,
    snapshot,
    unchanged,
    without_locks,
)

pytestmark = [pytest.mark.needs_ansible, pytest.mark.deadline(30)]


@pytest.fixture
def secret(images):
    """A file that no guest may see."""
    return raw(images.root / "secret", data=b"TOP SECRET " * 1000)


def with_backing_header(path, backing, backing_format="raw", size=MIB):
    """A qcow2 image whose header names a backing file that need not be there."""
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", backing_format, path, size)
    return path


def with_data_file(path, data_file):
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data_file}", path, "1M")
    return path


def encrypted(path, image_format="luks"):
    """Headers as ``qemu-img create`` makes them; it measures the machine for the key, and that fails on some."""
    if image_format == "luks":
        payload = 4040  # sectors
        head = struct.pack(">6sH32s32s32sII", b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", payload, 64)
        return raw(path, payload * 512 + MIB, head)
    secret = ["--object", "secret,id=s,data=swordfish"]
    qemu_img("create", "-q", *secret, "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M")
    return path


def make_bad(kind, folder, secret):
    path = folder / "image"
    if kind == "backing file":
        return with_backing_header(path, secret)
    if kind == "relative backing file":
        return with_backing_header(path, "secret")
    if kind == "missing backing file":
        return with_backing_header(path, "/nowhere/at/all")
    if kind == "data file":
        return with_data_file(path, folder / "data")
    if kind == "raw data file":
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={folder / 'data'},data_file_raw=on", path, "1M")
        return path
    if kind == "json":
        driver = json.dumps({"driver": "raw", "file": {"driver": "file", "filename": str(secret)}})
        return with_backing_header(path, f"json:{driver}")
    if kind == "protocol":
        return with_backing_header(path, "nbd://127.0.0.1:1/x")
    if kind == "luks":
        return encrypted(path)
    if kind == "encrypted qcow2":
        return encrypted(path, "qcow2")
    if kind == "vmdk":
        qemu_img("create", "-q", "-f", "vmdk", path, "1M")
        return path
    if kind == "vmdk descriptor":
        path.write_text(
            "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
            f'createType="monolithicFlat"\nRW 22 FLAT "{secret}" 0\n'
        )
        return path
    qemu_img("create", "-q", "-f", kind, path, "1M")
    return path


KINDS = {
    "backing file": "source_refused",
    "relative backing file": "source_refused",
    "missing backing file": "source_refused",
    "data file": "source_refused",
    "raw data file": "source_refused",
    "json": "source_refused",
    "protocol": "source_refused",
    "luks": "source_refused",
    "encrypted qcow2": "source_refused",
    "vmdk": "format_unsupported",
    "vmdk descriptor": "source_refused",
    "vdi": "format_unsupported",
    "vpc": "format_unsupported",
    "qed": "format_unsupported",
    "qcow": "format_unsupported",
    "parallels": "format_unsupported",
}


@CHECK
@pytest.mark.parametrize(("kind", "code"), KINDS.items(), ids=KINDS.keys())
def test_import(images, secret, kind, code, check):
    """As a path on the host, and as a volume of the pool; to qcow2, to raw, and as it is."""
    outside = make_bad(kind, images.root, secret)
    (images.images / "volume").write_bytes(outside.read_bytes())
    before = without_locks(snapshot(images.root))
    for source in ({"path": str(outside)}, {"volume": "volume"}):
        for declared in ({}, {"format": "qcow2"}, {"format": "raw"}):
            assert refused(images.volume(check, name="new", source=source, **declared), code)["hint"]
        # Not even when the task says that it is qcow2.
        result = images.volume(check, name="new", source={**source, "format": "qcow2"})
        assert result.get("failed"), result
        assert result["error"]["code"] in (code, "format_mismatch"), result["error"]
    assert without_locks(snapshot(images.root)) == before


@pytest.mark.parametrize("kind", KINDS.keys())
def test_import_of_the_bytes_as_they_are(images, secret, kind):
    """With format: raw a header in the source is content like any other."""
    outside = make_bad(kind, images.root, secret)
    source = {"path": str(outside), "format": "raw"}
    done(images.volume(name="new", source=source, format="raw"))
    made, given = (images.images / "new").read_bytes(), outside.read_bytes()
    assert made[: len(given)] == given
    assert len(made) - len(given) < 512
    done(images.volume(name="wrapped", source=source, format="qcow2"))
    assert "backing-filename" not in image_info(images.images / "wrapped")
    qemu_img("compare", "-f", "raw", "-F", "qcow2", outside, images.images / "wrapped")
    for name in ("new", "wrapped"):
        assert b"TOP SECRET" not in (images.images / name).read_bytes()
    unchanged(images.volume(name="new", source=source, format="raw"))
    assert leftovers(images.root) == []


def test_a_guest_wrote_a_header_into_its_raw_disk(images, secret):
    """A raw disk that begins like a qcow2 image built on a secret file: as backing or source it is never believed."""
    done(images.volume(name="disk", capacity="2M", format="raw"))
    header = with_backing_header(images.root / "header", secret, size=2 * MIB).read_bytes()
    with (images.images / "disk").open("r+b") as file:
        file.write(header)
    content = (images.images / "disk").read_bytes()
    refused(images.volume(name="over", format="qcow2", backing="disk"), "backing_format")
    refused(images.volume(name="over", format="qcow2", backing={"path": str(images.images / "disk")}), "backing_format")
    refused(images.volume(name="copy", source={"volume": "disk"}), "source_refused")
    refused(images.volume(name="copy", source={"volume": "disk", "format": "qcow2"}), "source_refused")
    assert os.listdir(images.images) == ["disk"]

    done(images.volume(name="over", format="qcow2", backing={"volume": "disk", "format": "raw"}))
    info = image_info(images.images / "over")
    assert info["backing-filename-format"] == "raw"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", images.images / "over", images.root / "read")
    assert b"TOP SECRET" not in (images.root / "read").read_bytes()
    done(images.volume(name="copy", source={"volume": "disk", "format": "raw"}))
    assert (images.images / "copy").read_bytes() == content


@pytest.mark.parametrize("recreate", ["never", "needed"])
def test_a_raw_disk_stays_raw_whatever_a_guest_writes_into_it(images, secret, recreate):
    """What was declared raw is compared, grown and built on as raw; nothing in it makes it another volume."""
    declared = {"name": "disk", "capacity": "2M", "format": "raw", "recreate": recreate}
    done(images.volume(**declared))
    headers = {
        "qcow2": with_backing_header(images.root / "header", secret, size=64 * MIB).read_bytes(),
        "malformed": b"QFI\xfb" + b"\xff" * 100,
        "luks": encrypted(images.root / "luks").read_bytes()[:4096],
        "vmdk": b'# Disk DescriptorFile\nRW 22 FLAT "/etc/shadow" 0\n',
    }
    path = images.images / "disk"
    for number, header in enumerate(headers.values()):
        with path.open("r+b") as file:
            file.write(header)
        content = path.read_bytes()
        unchanged(images.volume(**declared))
        over = {"name": f"over{number}", "format": "qcow2", "backing": "disk"}
        done(images.volume(volumes=[{"name": "disk", "capacity": "2M", "format": "raw"}, over]))
        info = image_info(images.images / over["name"])
        assert (info["backing-filename-format"], info["virtual-size"]) == ("raw", 2 * MIB)
        done(images.volume(name=over["name"], state="absent"))
        assert path.read_bytes() == content
    inode, before = path.stat().st_ino, path.read_bytes()
    done(images.volume(name="disk", capacity="3M", format="raw", recreate=recreate))
    assert (path.stat().st_ino, path.stat().st_size) == (inode, 3 * MIB)
    assert path.read_bytes().startswith(before)
    shrinking = {"name": "disk", "capacity": "2M", "format": "raw", "recreate": recreate}
    refused(images.volume(**shrinking), "shrink_refused")
    done(images.volume(allow=["shrink"], **shrinking))
    assert path.read_bytes() == before
    assert leftovers(images.root) == []


@CHECK
def test_a_qcow2_image_that_was_declared_raw_does_not_grow(images, check):
    path = qcow2(images.images / "disk", "1M")
    before = path.read_bytes()
    declared = {"name": "disk", "format": "raw", "capacity": "5M"}
    assert "qcow2" in refused(images.volume(check, **declared), "format_mismatch")["hint"]
    assert path.read_bytes() == before
    done(images.volume(check, allow=["raw"], **declared))
    assert path.stat().st_size == (len(before) if check else 5 * MIB)
    assert path.read_bytes().startswith(before)


def test_a_deeper_file_whose_format_nobody_declared(images, secret):
    """A chain can be entered by the back door: its second member probed."""
    raw_disk = with_backing_header(images.root / "disk", secret)
    middle = images.root / "middle"
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", raw_disk, "-F", "qcow2", middle, "1M")
    data = middle.read_bytes()
    # The header extension "backing file format" is renamed to one that nobody knows, as if it had never been there.
    at = data.index(struct.pack(">I", 0xE2792ACA))
    middle.write_bytes(data[:at] + struct.pack(">I", 0x12345678) + data[at + 4 :])
    assert "backing-filename-format" not in image_info(middle)
    backing = {"path": str(middle), "format": "qcow2"}
    refused(images.volume(name="over", format="qcow2", backing=backing), "backing_format")
    assert os.listdir(images.images) == []


@CHECK
@pytest.mark.parametrize("kind", ["json", "protocol", "missing backing file"])
def test_backing_built_on_what_is_no_file(images, secret, kind, check):
    path = make_bad(kind, images.root, secret)
    before = without_locks(snapshot(images.root))
    result = images.volume(check, name="over", format="qcow2", backing={"path": str(path), "format": "qcow2"})
    if kind == "missing backing file":
        if check:
            assert result["warnings"], result
        else:
            refused(result, "backing_missing")
    else:
        refused(result, "backing_refused")
    assert without_locks(snapshot(images.root)) == before


@CHECK
@pytest.mark.parametrize("kind", ["luks", "encrypted qcow2", "data file"])
def test_backing_that_is_more_than_a_file(images, secret, kind, check):
    """Taken only when its format is declared; then it is what it is: never silently something else."""
    path = make_bad(kind, images.root, secret)
    result = images.volume(check, name="over", format="qcow2", backing=str(path))
    if kind == "luks" and not result.get("failed"):
        # To libvirt that is a raw file: its bytes are what an overlay shows.
        assert check or image_info(images.images / "over")["backing-filename-format"] == "raw"
        return
    assert result["error"]["code"] in ("backing_format", "backing_refused"), result
    assert os.listdir(images.images) == []


@CHECK
def test_missing_backing_and_source(images, check):
    calls = {
        "backing_missing": (
            {"backing": {"volume": "no", "format": "raw"}},
            {"backing": {"path": "/no/where", "format": "raw"}},
        ),
        "source_missing": ({"source": {"volume": "no"}}, {"source": {"path": "/no/where"}}),
    }
    for code, declared in calls.items():
        for made_from in declared:
            result = images.volume(check, name="new", format="qcow2", capacity="1M", **made_from)
            if check:
                assert result["changed"], result
                assert result["warnings"], result
            else:
                refused(result, code)
    assert os.listdir(images.images) == []


# -- loops --------------------------------------------------------------------------------------------------------


def make_loop(images, length):
    """Images that are built on each other, as a careless ``rebase -u`` leaves them."""
    paths = [qcow2(images.images / f"loop{number}") for number in range(length)]
    for number, path in enumerate(paths):
        below = paths[(number + 1) % length]
        qemu_img("rebase", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", path)
    return paths


@pytest.mark.parametrize("length", [1, 2, 3])
def test_loops_on_disk(images, length):
    paths = make_loop(images, length)
    before = without_locks(snapshot(images.root))
    listed = {volume["name"]: volume for volume in images.volume_info(pool="images")}
    assert set(listed) == {path.name for path in paths}
    for check in (True, False):
        for backing in ({"volume": "loop0", "format": "qcow2"}, {"path": str(paths[0]), "format": "qcow2"}):
            refused(images.volume(check, name="over", format="qcow2", backing=backing), "backing_loop")
        refused(images.volume(check, name="copy", source={"volume": "loop0"}), "source_refused")
    assert without_locks(snapshot(images.root)) == before
    if length > 1:
        refused(images.volume(name="loop0", state="absent"), "volume_backing")
    done(images.volume(volumes=[{"name": path.name, "state": "absent"} for path in paths]))
    assert os.listdir(images.images) == []


@CHECK
@pytest.mark.parametrize("length", [1, 2, 3])
def test_loops_of_declared_volumes(images, length, check):
    volumes = [
        {
            "name": f"v{n}",
            "format": "qcow2",
            "capacity": "1M",
            "backing": {"volume": f"v{(n + 1) % length}", "format": "qcow2"},
        }
        for n in range(length)
    ]
    refused(images.volume(check, volumes=volumes), "backing_loop")
    for volume in volumes:
        volume["source"] = {"volume": volume.pop("backing")["volume"]}
    refused(images.volume(check, volumes=volumes), "backing_loop")
    assert os.listdir(images.images) == []


@CHECK
def test_a_loop_closed_by_a_declared_volume(images, check):
    """over is built on base; now base shall be built on over. By volume, by path, through a link."""
    done(images.volume(name="base", format="qcow2", capacity="1M"))
    done(images.volume(name="over", format="qcow2", backing={"volume": "base", "format": "qcow2"}))
    (images.root / "link").symlink_to(images.images)
    before = without_locks(snapshot(images.root))
    over = images.images / "over"
    for backing in ({"volume": "over"}, {"path": str(over)}, {"path": str(images.root / "link" / "over")}):
        declared = {"name": "base", "format": "qcow2", "capacity": "1M", "backing": {**backing, "format": "qcow2"}}
        refused(images.volume(check, allow=["backing", "in_use"], **declared), "backing_loop")
        refused(images.volume(check, allow=["backing", "in_use"], recreate="needed", **declared), "backing_loop")
        refused(images.volume(check, allow=["backing", "in_use"], recreate="always", **declared), "backing_loop")
    itself = {"volume": "base", "format": "qcow2"}
    refused(images.volume(check, name="base", format="qcow2", backing=itself, allow=["backing"]), "backing_loop")
    assert without_locks(snapshot(images.root)) == before


def test_a_loop_closed_by_a_name_that_was_free(images):
    """An image in another place names a path of the pool that is free: made on it, that volume would be a loop."""
    hollow = with_backing_header(images.root / "hollow", images.images / "new", "qcow2")
    backing = {"path": str(hollow), "format": "qcow2"}
    for check in (True, False):
        refused(images.volume(check, name="new", format="qcow2", backing=backing), "backing_loop")
    assert os.listdir(images.images) == []


def test_recreating_from_itself(images):
    """The source of a volume made anew is the volume itself: its content must not be lost on the way."""
    done(images.volume(name="a", source={"content": "precious"}))
    result = images.volume(name="a", source={"volume": "a"}, recreate="always")
    if result.get("failed"):
        assert result["error"]["code"] in ("backing_loop", "source_refused", "invalid_option"), result["error"]
    assert (images.images / "a").read_bytes().startswith(b"precious")


@pytest.mark.thorough
def test_a_very_long_chain_ends(images):
    top = qcow2(images.root / "0")
    for number in range(1, 80):
        top = with_backing_header(images.root / str(number), top, "qcow2")
    refused(
        images.volume(name="over", format="qcow2", backing={"path": str(top), "format": "qcow2"}), "backing_refused"
    )
    assert os.listdir(images.images) == []


# -- what is declared wrongly -------------------------------------------------------------------------------------


@CHECK
def test_wrong_formats(images, check):
    qcow2(images.root / "q")
    raw(images.root / "r")
    q, r = str(images.root / "q"), str(images.root / "r")
    refused(images.volume(check, name="a", format="qcow2", backing={"path": r, "format": "qcow2"}), "format_mismatch")
    refused(images.volume(check, name="a", source={"path": r, "format": "qcow2"}), "format_mismatch")
    refused(images.volume(check, name="a", format="qcow2", backing=q), "backing_format")
    refused(images.volume(check, name="a", format="raw", capacity="1M", backing=r), "invalid_option")
    result = images.volume(check, name="a", format="qcow2", capacity="1M", backing={"path": r, "format": "vmdk"})
    refused(result, "format_mismatch")
    assert os.listdir(images.images) == []


@CHECK
def test_wrong_formats_of_what_the_same_task_makes(images, check):
    """A byte-for-byte copy of a qcow2 file would be no copy of the volume."""
    base = {"name": "base", "format": "qcow2", "capacity": "1M"}
    for use in ("source", "backing"):
        over = {"name": "over", "format": "qcow2", use: {"volume": "base", "format": "raw"}}
        refused(images.volume(check, volumes=[over, base]), "format_mismatch")
    assert os.listdir(images.images) == []
    raw(images.images / "base", 2 * MIB)
    before = snapshot(images.images)
    copy = {"name": "copy", "source": {"volume": "base", "format": "raw"}}
    refused(images.volume(check, volumes=[copy, {**base, "recreate": "always"}]), "format_mismatch")
    assert snapshot(images.images) == before


def test_a_copy_of_what_is_made_anew(images):
    """The copy is one of the new volume, in its new format and size."""
    raw(images.images / "base", 2 * MIB)
    base = {"name": "base", "format": "qcow2", "capacity": "1M", "recreate": "needed"}
    done(images.volume(volumes=[{"name": "copy", "source": {"volume": "base"}}, base]))
    info = image_info(images.images / "copy")
    assert (info["format"], info["virtual-size"]) == ("qcow2", MIB)


def test_a_qcow2_volume_made_anew_as_raw_keeps_its_size(images):
    qcow2(images.images / "disk", "5M")
    done(images.volume(name="disk", format="raw", recreate="always"))
    info = image_info(images.images / "disk")
    assert (info["format"], info["virtual-size"]) == ("raw", 5 * MIB)


def test_backing_removed_by_the_same_task(images):
    done(images.volume(name="base", capacity="1M"))
    volumes = [
        {"name": "base", "state": "absent"},
        {"name": "over", "format": "qcow2", "backing": {"volume": "base", "format": "raw"}},
    ]
    for check in (True, False):
        result = images.volume(check, volumes=volumes)
        assert result.get("failed"), result
    assert os.listdir(images.images) == ["base"]


def test_sizes_of_sources_with_odd_lengths(images):
    """qemu-img rounds up what is not a multiple of 512; inline content is exact."""
    for size in (1, 511, 513, 64 * KIB + 1):
        source = raw(images.root / "odd", size, b"x" * size)
        done(images.volume(name="a", source={"path": str(source)}))
        assert (images.images / "a").read_bytes().rstrip(b"\0") == b"x" * size
        unchanged(images.volume(name="a", source={"path": str(source)}))
        done(images.volume(name="a", state="absent"))


# -- overlays and their base in one task --------------------------------------------------------------------------


def overlay_of_two(images):
    """v, built on a, shows a's letters and its own; b is empty."""
    folder = images.images
    raw(images.root / "letters", 256 * KIB, b"a" * 128 * KIB)
    qemu_img("convert", "-O", "qcow2", images.root / "letters", folder / "a")
    qcow2(folder / "b", "256K")
    with_backing_header(folder / "v", folder / "a", "qcow2", 256 * KIB)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x76 128k 64k", folder / "v"], check=True, timeout=60)
    return b"a" * 128 * KIB + b"v" * 64 * KIB + bytes(64 * KIB)


def read_through(images, name):
    qemu_img("convert", "-U", "-f", "qcow2", "-O", "raw", images.images / name, images.root / "read")
    return (images.root / "read").read_bytes()


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-io is not installed")
@pytest.mark.parametrize(
    "base",
    [
        {"format": "qcow2", "capacity": "256K", "recreate": "always"},
        {"format": "qcow2", "capacity": "64K", "allow": ["shrink"]},
        {"state": "absent"},
    ],
    ids=["made-anew", "shrunk", "removed"],
)
def test_an_overlay_leaves_before_its_base_is_changed(images, base):
    content = overlay_of_two(images)
    base = {"name": "a", **base}
    overlay = {"name": "v", "backing": {"volume": "b", "format": "qcow2"}, "allow": ["backing"]}
    refused(images.volume(volumes=[base]), "volume_backing")
    refused(images.volume(volumes=[base, {"name": "v"}]), "volume_backing")
    planned = images.volume(True, volumes=[base, overlay])
    result = done(images.volume(volumes=[base, overlay]))
    assert [(entry["action"], entry["commands"]) for entry in planned["plan"]] == [
        (entry["action"], entry["commands"]) for entry in result["plan"]
    ]
    assert result["plan"][0]["action"] == "rebase"
    assert read_through(images, "v") == content
    assert image_info(images.images / "v")["full-backing-filename"] == str(images.images / "b")


@CHECK
def test_an_image_keeps_its_internal_snapshots_and_bitmaps(images, check):
    folder = images.images
    raw(folder / "a", MIB, b"a" * MIB)
    raw(folder / "b", MIB, b"b" * MIB)
    qcow2(folder / "v", "1M", "-b", folder / "a", "-F", "raw")
    qcow2(folder / "old", "1M", "-o", "compat=0.10")
    qcow2(folder / "narrow", "1M", "-o", "refcount_bits=1")
    qcow2(folder / "marked")
    qemu_img("bitmap", "--add", folder / "marked", "one")
    for name in ("v", "old"):
        qemu_img("snapshot", "-c", "s", folder / name)
    before = snapshot(folder)
    rebase = {"backing": {"volume": "b", "format": "raw"}, "allow": ["backing"]}
    refused(images.volume(check, name="v", format="qcow2", **rebase), "volume_differs")
    refused(images.volume(check, name="old", format="qcow2", capacity="2M"), "volume_differs")
    for name in ("v", "narrow", "marked"):
        refused(images.volume(check, name=name, format="qcow2", options={"compat": "0.10"}), "invalid_option")
    assert snapshot(folder) == before
    done(images.volume(name="old", format="qcow2", capacity="2M", options={"compat": "1.1"}))
    assert image_info(folder / "old")["snapshots"][0]["name"] == "s"


def test_an_overlay_that_can_not_leave_stops_its_base(images):
    """The rebase fails: then the base stays, and with it what the overlay reads."""
    folder = images.images
    raw(images.root / "letters", 256 * KIB, b"a" * 128 * KIB)
    qemu_img("convert", "-O", "qcow2", images.root / "letters", folder / "a")
    qcow2(folder / "b", "256K")
    damaged = with_backing_header(folder / "v", folder / "a", "qcow2", 256 * KIB)
    with damaged.open("r+b") as file:
        file.seek(40)  # where the level 1 table is
        file.seek(struct.unpack(">Q", file.read(8))[0])
        file.write(struct.pack(">Q", 1 << 63 | 0x10200))  # not the start of a cluster
    before = snapshot(folder)
    volumes = [
        {"name": "a", "format": "qcow2", "capacity": "256K", "recreate": "always"},
        {"name": "v", "backing": {"volume": "b", "format": "qcow2"}, "allow": ["backing"]},
    ]
    result = images.volume(volumes=volumes)
    assert result.get("failed")
    assert {entry["name"]: entry["status"] for entry in result["volumes"]} == {"a": "skipped", "v": "failed"}
    assert result["error"]["code"] == "command_failed"
    assert snapshot(folder)["a"] == before["a"]


@CHECK
def test_no_order_is_refused(images, check):
    folder = images.images
    qcow2(folder / "a")
    with_backing_header(folder / "m", folder / "a", "qcow2")
    with_backing_header(folder / "v", folder / "m", "qcow2")
    before = snapshot(images.root)
    volumes = [
        {"name": "v", "backing": {"volume": "a", "format": "qcow2"}},
        {"name": "a", "format": "qcow2", "capacity": "1M", "recreate": "always"},
    ]
    refused(images.volume(check, volumes=volumes, allow=["backing"]), "no_order")
    assert without_locks(snapshot(images.root)) == without_locks(before)
