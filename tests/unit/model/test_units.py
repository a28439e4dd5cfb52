# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes and modes: libvirt's units, and what is no size and no mode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.virt.storage.plugins.module_utils.model import units
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError

# formatstorage, "capacity": the unit, and what it stands for.
UNITS = {
    "B": 1,
    "bytes": 1,
    "byte": 1,
    "KB": 10**3,
    "K": 2**10,
    "KiB": 2**10,
    "MB": 10**6,
    "M": 2**20,
    "MiB": 2**20,
    "GB": 10**9,
    "G": 2**30,
    "GiB": 2**30,
    "TB": 10**12,
    "T": 2**40,
    "TiB": 2**40,
    "PB": 10**15,
    "P": 2**50,
    "PiB": 2**50,
    "EB": 10**18,
    "E": 2**60,
    "EiB": 2**60,
}


def refusal(function, *args):
    with pytest.raises(StorageError) as caught:
        function(*args)
    error = caught.value
    assert error.hint
    return error


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("change", [str, str.lower, str.upper], ids=["as-written", "lower", "upper"])
def test_every_unit_of_libvirt(unit, change):
    assert units.parse_size("3" + change(unit), "capacity") == 3 * UNITS[unit]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        pytest.param("0", 0, id="zero"),
        pytest.param(0, 0, id="zero-integer"),
        pytest.param(1073741824, 2**30, id="integer"),
        pytest.param("1073741824", 2**30, id="bytes-without-unit"),
        pytest.param("512 MiB", 512 * 2**20, id="space-before-unit"),
        pytest.param("  10G  ", 10 * 2**30, id="spaces-around"),
        pytest.param("10\tG\n", 10 * 2**30, id="other-white-space"),
        pytest.param("007K", 7 * 2**10, id="leading-zeros"),
        pytest.param(str(2**63 - 1), 2**63 - 1, id="the-limit"),
        pytest.param("7EiB", 7 * 2**60, id="largest-in-exbibytes"),
    ],
)
def test_sizes(text, size):
    assert units.parse_size(text, "capacity") == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "G", "-1", "-1G", "+1G", "1.5G", "1,5G", "1e3", "0x10", "10Z", "10YiB", "10Gi", "10Gib2", "10 G iB",
     "1 0G", "1_000", "１０G", "ten", None, True, False, 1.5, [], {}, b"10G", "10G\0"],
    ids=repr,
)  # fmt: skip
def test_what_is_no_size(text):
    error = refusal(units.parse_size, text, "capacity", "volume p/v")
    assert (error.code, error.subject) == ("invalid_size", "volume p/v")
    assert error.message.startswith("capacity: ")


@pytest.mark.parametrize("text", [str(2**63), "8EiB", "8E", "10EB", "9223372036854775807K", 2**63])
def test_what_is_too_large(text):
    assert refusal(units.parse_size, text, "capacity").code == "capacity_too_large"


def test_a_number_of_absurd_length_is_refused():
    assert refusal(units.parse_size, "9" * 5000, "capacity").code in ("capacity_too_large", "invalid_size")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536 * 2**20, "1536 MiB"),
        (10 * 2**30, "10 GiB"),
        (1000001, "1000001 bytes"),
        (2**60, "1 EiB"),
        (1024**4, "1 TiB"),
    ],
)
def test_sizes_as_text(size, text):
    assert units.format_size(size) == text


@given(st.integers(0, 2**63 - 1))
def test_text_of_a_size_reads_back(size):
    assert units.parse_size(units.format_size(size), "capacity") == size


@given(st.integers(0, 2**64), st.sampled_from([1, 512, 4096, 65536]))
def test_rounding_up(size, granule):
    rounded = units.round_up(size, granule)
    assert rounded % granule == 0
    assert size <= rounded < size + granule


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        pytest.param(0o644, 0o644, id="integer-is-bits"),
        pytest.param(420, 0o644, id="integer-written-decimal"),
        pytest.param(0, 0, id="integer-zero"),
        pytest.param(0o777, 0o777, id="integer-largest"),
        pytest.param("644", 0o644, id="text-is-octal"),
        pytest.param("0644", 0o644, id="text-with-zero"),
        pytest.param("00644", 0o644, id="text-with-two-zeros"),
        pytest.param("0o711", 0o711, id="text-as-python-has-it"),
        pytest.param(" 0711 ", 0o711, id="text-with-spaces"),
        pytest.param("0", 0, id="text-zero"),
        pytest.param("777", 0o777, id="text-largest"),
    ],
)
def test_modes(value, bits):
    assert units.parse_mode(value, "mode") == bits


@pytest.mark.parametrize(
    "value",
    ["", "8", "0888", "1777", "01000", "-1", "u=rw", "0x1ff", "rw-r--r--", "644.0", "0000644", "0o", -1, 0o1000,
     0o100644, True, False, 6.44, None, [], ["644"]],
    ids=repr,
)  # fmt: skip
def test_what_is_no_mode(value):
    error = refusal(units.parse_mode, value, "mode", "pool p")
    assert (error.code, error.subject) == ("invalid_mode", "pool p")


@pytest.mark.parametrize("value", [400, 440, 444])
def test_a_mode_to_read_only_is_not_taken_for_other_bits(value):
    assert refusal(units.parse_mode, value, "mode", "pool p").hint == f'Quote it as octal text: mode: "0{value}".'
    assert units.parse_mode(int(str(value), 8), "mode") == int(str(value), 8)


def test_what_to_write_for_a_mode():
    error = refusal(units.parse_mode, 755, "mode", "pool p")
    assert error.message.endswith("a mode between 0000 and 0777: without quotes it is a number, 0o1363 in octal")
    assert error.hint == 'Quote it as octal text: mode: "0755".'


@pytest.mark.parametrize("value", [788, 0o1777, True, "1777", "u=rw"])
def test_what_nobody_can_have_meant(value):
    error = refusal(units.parse_mode, value, "mode", "pool p")
    assert error.message == f"mode: {value!r} is not a mode between 0000 and 0777"
    assert error.hint == 'Quote it as octal text, such as mode: "0711".'


@given(st.integers(0, 0o777))
def test_text_of_a_mode_reads_back(bits):
    text = units.format_mode(bits)
    assert text.startswith("0")
    assert units.parse_mode(text, "mode") == bits


def test_text_of_a_mode_is_libvirts():
    assert [units.format_mode(bits) for bits in (0o711, 0o600, 0o7)] == ["0711", "0600", "07"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (10, "10 bytes"),
        (99999, "99999 bytes"),
        (100001, "100001 bytes (about 97.7 KiB)"),
        (1023 * 2**20, "1023 MiB"),
        (1072676352, "1072676352 bytes (about 1023.0 MiB)"),
        (10 * 2**30, "10 GiB"),
    ],
)
def test_a_size_that_can_be_read(size, text):
    assert units.spoken_size(size) == text


def test_counted():
    assert [units.counted(n, "volume") for n in (0, 1, 2)] == ["0 volumes", "1 volume", "2 volumes"]


def test_listed():
    assert [units.listed("abcd"[:n], 2) for n in range(5)] == ["", "a", "a, b", "a, b and 1 more", "a, b and 2 more"]
    assert units.listed(range(6)) == "0, 1, 2, 3, 4 and 1 more"
