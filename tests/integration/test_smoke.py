# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs_ansible


def test_pool_and_volume(host):
    planned = host.pool(check=True, name="images", type="dir", path=str(host.images))
    assert planned["changed"]
    assert not host.root.exists()
    host.start_images()
    assert host.images.is_dir()
    made = host.volume(name="a.raw", capacity="1MiB")
    assert made["changed"]
    assert made["volumes"][0]["status"] == "changed"
    assert (host.images / "a.raw").stat().st_size == 2**20
    assert not host.volume(name="a.raw", capacity="1MiB")["changed"]
