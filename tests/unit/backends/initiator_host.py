# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with open-iscsi: its database in files, and a stand-in for iscsiadm that changes these and a made-up sysfs."""

from __future__ import annotations

import shlex
import socket

from ansible_collections.virt.storage.plugins.module_utils.host import initiator, iscsi, iscsi_records, iscsiadm
from ansible_collections.virt.storage.plugins.module_utils.host.run import Ended

OWN = "iqn.1993-08.org.debian:01:0123456789a"


class OpenIscsi:
    """``offers``: target by target the portals that tell of it, as iscsiadm prints them; ``wants``: the settings that a
    record must have for a login, ``wants_of_asking``: those for being told what there is; ``log``: the command lines
    that there were.
    """

    def __init__(self, root, tree, monkeypatch):
        self.tree, self.log = tree, []
        self.database = root / "etc/iscsi"
        (self.database / "nodes").mkdir(parents=True)
        (self.database / "ifaces").mkdir()
        (self.database / "initiatorname.iscsi").write_text(f"## made up\nInitiatorName={OWN}\n")
        self.offers, self.wants, self.fails = {}, {}, {}
        self.wants_of_asking = {}
        self.units = ("0",)
        self._next = 1
        places = (str(self.database), str(root / "var/lib/iscsi"))
        for module in (initiator, iscsi, iscsi_records):
            monkeypatch.setattr(module, "DATABASES", places)
        monkeypatch.setattr(iscsi, "_OWN_NAME", str(self.database / "initiatorname.iscsi"))
        monkeypatch.setattr(iscsiadm, "finish", self.finish)
        monkeypatch.setattr(initiator, "_APPEARING", 0.3)
        monkeypatch.setattr(initiator, "_UNDOING", 0.5)

    def listen(self):
        """A portal: a socket that listens, with its port."""
        server = socket.create_server(("127.0.0.1", 0))
        return server, f"127.0.0.1:{server.getsockname()[1]}"

    def offer(self, target, portal, tag=1):
        self.offers.setdefault(target, []).append(f"{portal},{tag}")

    def node(self, target, portal, iface="default", tag=1, **settings):
        """A record that is there; settings with two underscores for each dot."""
        host, _colon, port = portal.rpartition(":")
        path = self.database / f"nodes/{target}/{host},{port},{tag}/{iface}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ["# BEGIN RECORD 2.1.8", f"node.name = {target}", "node.startup = automatic"]
        lines += [f"{name.replace('__', '.')} = {value}" for name, value in settings.items()]
        path.write_text("\n".join([*lines, "# END RECORD", ""]))
        return path

    def iface(self, name, initiatorname):
        (self.database / "ifaces" / name).write_text(
            f"# BEGIN RECORD 2.1.8\niface.iscsi_ifacename = {name}\niface.transport_name = tcp\n"
            f"iface.initiatorname = {initiatorname}\n# END RECORD\n"
        )

    def records(self):
        return sorted(str(path.relative_to(self.database)) for path in self.database.glob("nodes/*/*/*"))

    def ifaces(self):
        return sorted(path.name for path in (self.database / "ifaces").iterdir())

    # --- iscsiadm ----------------------------------------------------------------------------------------------------

    def finish(self, argv, keep_fds=(), timeout=None, environment=None, stdin=b"", user=None):
        assert timeout > 0
        command = " ".join(map(shlex.quote, argv))
        self.log.append(command)
        words, options = list(argv[1:]), {}
        while words:
            word = words.pop(0)
            options[word] = words.pop(0) if words and not words[0].startswith("-") else ""
        for named, (status, stderr) in self.fails.items():
            if named in command:
                return Ended(command, status, "", stderr)
        status, printed = getattr(self, f"_{options['-m']}")(options)
        return Ended(command, status, printed, "" if status == 0 else f"iscsiadm: status {status}")

    def _discovery(self, options):
        assert options["-o"] == "nonpersistent"
        if options["-I"] != "default" and options["-I"] not in self.ifaces():
            return 6, ""
        return (24, "") if self.wants_of_asking else self._told()

    def _told(self):
        lines = [f"{portal} {target}\n" for target, portals in self.offers.items() for portal in portals]
        return (0, "".join(lines)) if lines else (21, "")

    def asking(self, portal, **settings):
        """The record of how a portal is asked; settings with two underscores for each dot."""
        path = self.database / f"send_targets/{portal.replace(':', ',')}/st_config"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{name.replace('__', '.')} = {value}\n" for name, value in settings.items()]
        path.write_text("".join(["# BEGIN RECORD 2.1.8\n", *lines, "# END RECORD\n"]))
        return path

    def _discoverydb(self, options):
        path = self.database / f"send_targets/{options['-p'].replace(':', ',')}/st_config"
        if options["-o"] == "new":
            self.asking(options["-p"], discovery__sendtargets__auth__authmethod="None")
        elif options["-o"] == "delete":
            path.unlink()
            path.parent.rmdir()
        else:
            assert (options["-o"], options["--discover"]) == ("nonpersistent", "")
            settings = iscsi.fields_of(str(path))
            if any(settings.get(name) != value for name, value in self.wants_of_asking.items()):
                return 24, ""
            return self._told()
        return 0, ""

    def _iface(self, options):
        path = self.database / "ifaces" / options["-I"]
        if options["-o"] == "new":
            self.iface(options["-I"], "<empty>")
        elif options["-o"] == "update":
            assert path.exists()
            self.iface(options["-I"], options["-v"])
        else:
            path.unlink()
        return 0, ""

    def _node(self, options):
        portal, _comma, tag = options["-p"].rpartition(",")
        host, _colon, port = portal.rpartition(":")
        path = self.database / f"nodes/{options['-T']}/{host},{port},{tag}/{options['-I']}"
        running = [each for each in iscsi.sessions() if each.target == options["-T"] and each.iface == options["-I"]]
        if options.get("-o") == "new":
            self.node(options["-T"], portal, options["-I"], tag)
        elif options.get("-o") == "update":
            path.write_text(path.read_text().replace("startup = automatic", f"startup = {options['-v']}"))
        elif options.get("-o") == "delete":
            if running:
                return 15, ""
            path.unlink()
            for parent in (path.parent, path.parent.parent):
                if not list(parent.iterdir()):
                    parent.rmdir()
        elif "--login" in options:
            return self._login(path, options, host, int(port), running)
        return 0, ""

    def _login(self, path, options, host, port, running):
        if not path.exists():
            return 21, ""
        if any(iscsi.Portal(host, port) in each.portals for each in running):
            return 15, ""
        settings = iscsi.fields_of(str(path))
        if any(settings.get(name) != value for name, value in self.wants.items()):
            return 24, ""
        name = OWN
        if options["-I"] != "default":
            name = iscsi.fields_of(str(self.database / "ifaces" / options["-I"]))["iface.initiatorname"]
        number, self._next = self._next, self._next + 1
        self.tree.session(number, options["-T"], 10 + number, host, port, name, options["-I"])
        for lun in self.units:
            self.tree.unit(f"{10 + number}:0:0:{lun}")
        return 0, ""

    def _session(self, options):
        number = int(options["-r"])
        there = next((each for each in iscsi.sessions() if each.number == number), None)
        if there is None:
            return 22, ""
        self.tree.end_session(number, there.host)
        return 0, ""
