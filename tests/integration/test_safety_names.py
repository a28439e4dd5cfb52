# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names and sizes that are refused before anything changes, in check mode as in a real run."""

from __future__ import annotations

import os

import pytest

from .crash_support import (
    CHECK,
    GIB,
    KIB,
    MIB,
    TIB,
    done,
    image_info,
    leftovers,
    qcow2,
    refused,
    snapshot,
    unchanged,
    without_locks,
)

pytestmark = pytest.mark.needs_ansible


BAD_NAMES = {
    "slash": "a/b",
    "climbing": "../a",
    "absolute": "/tmp/a",
    "dot": ".",
    "dots": "..",
    "nul": "a\0b",
    "newline": "a\nb",
    "trailing newline": "a\n",
    "control": "a\x1bb",
    "delete": "a\x7fb",
    "dash": "-a",
    "option": "--help",
    "empty": "",
    "blank": "  ",
}
NAMES = pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())


# Ansible itself refuses a NUL on its way to the system's log; the modules must do so where it does not log.
QUIET = {"_ansible_no_log": True}


def assert_untouched(host, before, what):
    assert without_locks(snapshot(host.root)) == before, what


@CHECK
@NAMES
def test_volume_names(images, name, check):
    before = without_locks(snapshot(images.root))
    calls = (
        {"name": name, "capacity": "1M"},
        {"name": name, "state": "absent"},
        {"volumes": [{"name": "good", "capacity": "1M"}, {"name": name, "capacity": "1M"}]},
    )
    for params in calls:
        result = images.volume(check, **params, **QUIET)
        assert result.get("failed"), result
        assert result["error"]["code"] == "invalid_name", result
        assert result["changed"] is False
        assert_untouched(images, before, params)


@CHECK
@NAMES
def test_names_of_backing_and_source(images, name, check):
    before = without_locks(snapshot(images.root))
    for params in ({"backing": {"volume": name, "format": "raw"}}, {"source": {"volume": name}}):
        result = images.volume(check, name="good", format="qcow2", **params, **QUIET)
        assert result.get("failed"), result
        assert result["error"]["code"] == "invalid_name", result
        assert_untouched(images, before, params)


@CHECK
@NAMES
def test_pool_names(images, name, check):
    before = without_locks(snapshot(images.root))
    for params in ({"type": "dir", "path": str(images.root / "other")}, {"state": "absent"}):
        result = images.pool(check, name=name, **params, **QUIET)
        assert result.get("failed"), result
        assert result["error"]["code"] == "invalid_name", result
        assert_untouched(images, before, params)
    result = images.volume(check, pool=name, name="good", capacity="1M", **QUIET)
    assert result["error"]["code"] == "invalid_name"
    assert_untouched(images, before, "a pool that can't be")


@pytest.mark.parametrize("name", ["a\ud800", "\uffff", *BAD_NAMES.values()], ids=ascii)
def test_names_as_text(name):
    """Ansible lets no lone surrogate through; a look at the host could still bring one in."""
    from ansible_collections.virt.storage.plugins.module_utils.declare.names import pool_name, volume_name
    from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

    for check in (pool_name, volume_name):
        with pytest.raises(StorageError) as caught:
            check(name)
        assert caught.value.code == "invalid_name"


def test_reserved_name(images):
    refused(images.volume(name=".virt-storage", capacity="1M"), "invalid_name")
    refused(images.volume(name=".virt-storage", state="absent"), "invalid_name")
    refused(images.volume(name="a", format="qcow2", backing=".virt-storage"), "invalid_name")
    refused(images.volume(name="a", source={"volume": ".virt-storage"}), "invalid_name")


def test_bad_names_in_xml(images):
    volume = "<volume><name>{}</name><capacity>1024</capacity></volume>"
    pool = "<pool type='dir'><name>{}</name><target><path>/tmp/x</path></target></pool>"
    for name in ("a/b", "..", "-a", ".virt-storage", "a&#10;b", "x" * 256):
        assert images.volume(xml=volume.format(name))["error"]["code"] in ("invalid_name", "invalid_xml"), name
        if name != ".virt-storage":
            assert images.pool(xml=pool.format(name))["error"]["code"] in ("invalid_name", "invalid_xml"), name


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_longest_names(images, letter):
    """A file name has 255 bytes; the name of a pool leaves room for the suffixes of its files."""
    width = len(letter.encode())
    longest = letter * (255 // width)
    for params in ({"capacity": "1M"}, {"format": "qcow2", "capacity": "1M"}):
        done(images.volume(name=longest, **params))
        assert (images.images / longest).is_file()
        done(images.volume(name=longest, state="absent"))
    done(images.volume(volumes=[{"name": longest[:-1] + end, "format": "qcow2", "capacity": "1M"} for end in "abc"]))
    refused(images.volume(name=letter * (256 // width) if width > 1 else "x" * 256, capacity="1M"), "invalid_name")
    pool = letter * (240 // width)
    done(images.pool(name=pool, type="dir", path=str(images.root / "p"), autostart=True))
    done(images.volume(pool=pool, name="a", capacity="1M"))
    done(images.pool(name=pool, state="absent"))
    refused(images.pool(name=pool + "x", type="dir", path=str(images.root / "p")), "invalid_name")
    assert leftovers(images.root) == []


BAD_PATHS = ["relative", "", "/", "//", "//host/share", "/a/../b", "/a\0b", "/..", "/tmp/a\x01b"]


@CHECK
@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_pool_paths(host, path, check):
    result = host.pool(check, name="p", type="dir", path=path, **QUIET)
    assert result.get("failed"), result
    assert result["error"]["code"] == "invalid_path", result
    assert not (host.root / "etc/libvirt/storage/p.xml").exists()


@CHECK
@pytest.mark.parametrize("path", ["relative", "", "/a\0b"], ids=ascii)
def test_image_paths(images, path, check):
    for params in ({"backing": {"path": path, "format": "raw"}}, {"source": {"path": path}}):
        result = images.volume(check, name="a", format="qcow2", **params, **QUIET)
        assert result.get("failed"), result
        assert result["error"]["code"] in ("invalid_path", "invalid_option"), result
    assert os.listdir(images.images) == []


def test_what_a_link_is_before(images):
    """``..`` leads out of where the link leads to, not out of where it is."""
    (images.root / "real/deep").mkdir(parents=True)
    (images.root / "link").symlink_to(images.root / "real/deep")
    qcow2(images.root / "base", "1M")
    qcow2(images.root / "real/base", "2M")
    backing = {"path": f"{images.root}/link/../base", "format": "qcow2"}
    done(images.volume(name="over", format="qcow2", backing=backing))
    assert image_info(images.images / "over")["virtual-size"] == 2 * MIB
    assert os.path.samefile(image_info(images.images / "over")["backing-filename"], images.root / "real/base")
    unchanged(images.volume(name="over", format="qcow2", backing=backing))
    unchanged(images.volume(name="over", backing={**backing, "path": str(images.root / "real/base")}))
    done(images.volume(name="copy", format="qcow2", source={"path": f"{images.root}/link/../base"}))
    assert image_info(images.images / "copy")["virtual-size"] == 2 * MIB


# -- sizes --------------------------------------------------------------------------------------------------------

BAD_SIZES = {
    "negative": ("-1", "invalid_size"),
    "negative with unit": ("-1G", "invalid_size"),
    "fraction": ("1.5G", "invalid_size"),
    "garbage": ("lots", "invalid_size"),
    "unit": ("10Q", "invalid_size"),
    "only unit": ("G", "invalid_size"),
    "two units": ("1G 2M", "invalid_size"),
    "hexadecimal": ("0x10", "invalid_size"),
    "exponent": ("1e9", "invalid_size"),
    "empty": ("", "invalid_size"),
    "other digits": ("١٢", "invalid_size"),
    "2^63": (str(2**63), "capacity_too_large"),
    "8E": ("8E", "capacity_too_large"),
    "30 digits": ("9" * 30, "capacity_too_large"),
    "5000 digits": ("9" * 5000, "invalid_size"),
}


@CHECK
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize(("size", "code"), BAD_SIZES.values(), ids=BAD_SIZES.keys())
def test_sizes(images, size, code, image_format, check):
    refused(images.volume(check, name="a", format=image_format, capacity=size), code)
    refused(images.volume(check, name="a", format=image_format, capacity="1M", allocation=size), code)
    good = {"name": "good", "capacity": "1M"}
    refused(images.volume(check, volumes=[good, {"name": "bad", "capacity": size}]), code)
    assert os.listdir(images.images) == []


@CHECK
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_capacity_missing(images, image_format, check):
    refused(images.volume(check, name="a", format=image_format), "capacity_missing")
    refused(images.volume(check, volumes=[{"name": "b", "capacity": "1M"}, {"name": "a"}]), "capacity_missing")
    assert os.listdir(images.images) == []


def filesystem_limit(directory):
    """The largest file that the filesystem can hold, found out by trying."""
    low, high = 0, 2**63 - 1
    path = directory / "try"
    with path.open("wb") as file:
        while low < high:
            middle = (low + high + 1) // 2
            try:
                os.ftruncate(file.fileno(), middle)
                low = middle
            except OSError:
                high = middle - 1
    path.unlink()
    return low


@CHECK
def test_more_than_the_filesystem_can_hold(images, check):
    """On ext4 with blocks of 4 KiB that is 16 TiB; a sparse volume just below it can be made."""
    limit = filesystem_limit(images.images)
    if limit < 2**63 - 1:
        refused(images.volume(check, name="a", capacity=str(limit + 1)), "capacity_too_large")
    assert os.listdir(images.images) == []
    if not check:
        done(images.volume(name="a", capacity=str(limit)))
        assert (images.images / "a").stat().st_size == limit


@CHECK
def test_growth_beyond_what_the_filesystem_can_hold(images, check):
    limit = filesystem_limit(images.images)
    if limit == 2**63 - 1:
        limit -= 1
    done(images.volume(name="a", capacity="1M"))
    before = without_locks(snapshot(images.root))
    refused(images.volume(check, name="a", capacity=str(limit + 1)), "capacity_too_large")
    assert_untouched(images, before, "a")


QCOW2_LIMITS = {
    # 32 MiB of L1 entries, 8 bytes each; an L2 table is one cluster of 8 (extended: 16) bytes each
    "64K": (2 * 2**50, {}),
    "512": (128 * GIB, {"cluster_size": "512"}),
    "4K": (8 * TIB, {"cluster_size": "4K"}),
    "64K extended": (2**50, {"extended_l2": True}),
}


@CHECK
@pytest.mark.parametrize(("limit", "options"), QCOW2_LIMITS.values(), ids=QCOW2_LIMITS.keys())
def test_more_than_the_clusters_can_reach(images, limit, options, check):
    refused(
        images.volume(check, name="a", format="qcow2", capacity=str(limit + 512), options=options),
        "capacity_too_large",
    )
    assert os.listdir(images.images) == []


@CHECK
def test_growth_beyond_what_the_clusters_can_reach(images, check):
    done(images.volume(name="a", format="qcow2", capacity="1G", options={"cluster_size": "512"}))
    before = without_locks(snapshot(images.root))
    refused(images.volume(check, name="a", capacity=str(128 * GIB + 512)), "capacity_too_large")
    assert_untouched(images, before, "a")


@CHECK
@pytest.mark.parametrize(
    "options",
    [
        {"cluster_size": "256"},
        {"cluster_size": "4M"},
        {"cluster_size": "100000"},
        {"cluster_size": "0"},
        {"compat": "0.10", "lazy_refcounts": True},
        {"compat": "0.10", "extended_l2": True},
        {"extended_l2": True, "cluster_size": "4K"},
    ],
    ids=str,
)
def test_options_that_no_image_can_have(images, options, check):
    refused(images.volume(check, name="a", format="qcow2", capacity="1M", options=options), "invalid_option")
    good = {"name": "good", "capacity": "1M", "format": "qcow2", "options": {}}
    bad = {"name": "bad", "capacity": "1M", "format": "qcow2", "options": options}
    refused(images.volume(check, volumes=[good, bad]), "invalid_option")
    assert os.listdir(images.images) == []


def test_allocation_above_capacity(images):
    refused(images.volume(name="a", capacity="1M", allocation="2M"), "invalid_option")


@CHECK
def test_less_than_what_it_is_made_from(images, check):
    qcow2(images.root / "base.qcow2", 4 * MIB)
    base = str(images.root / "base.qcow2")
    for made_from in ({"backing": {"path": base, "format": "qcow2"}}, {"source": {"path": base}}):
        refused(
            images.volume(check, name="a", format="qcow2", capacity=str(2 * MIB), **made_from), "capacity_too_small"
        )
    refused(images.volume(check, name="a", capacity="3", source={"content": "four"}), "capacity_too_small")
    assert os.listdir(images.images) == []


def test_odd_sizes_are_not_a_difference(images):
    """qemu-img rounds qcow2 up to sectors; raw is exact."""
    for name, image_format, size in (("a", "raw", 1025), ("b", "qcow2", 64 * KIB + 1), ("c", "raw", 0)):
        done(images.volume(name=name, format=image_format, capacity=str(size)))
        assert not images.volume(name=name, format=image_format, capacity=str(size))["changed"]
        assert size <= image_info(images.images / name)["virtual-size"] < size + 512
