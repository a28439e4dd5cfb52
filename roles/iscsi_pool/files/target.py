# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings a target of the kernel (LIO) to what is declared on standard input as JSON, and says as JSON what that took.

What is served is read from the kernel's own files (configfs), and what will be after a boot from the file that
targetctl restores; looking writes nothing, and loads nothing. Changes are made by rtslib. Of the saved file only the
declared target and its storage objects are replaced: it may have others that do not run right now, or lack some that
do. Secrets come in by standard input, and are in nothing that is said.
"""

import errno
import json
import os
import re
import stat
import sys

CONFIGFS = "/sys/kernel/config/target"
SAVED = ("/etc/rtslib-fb-target/saveconfig.json", "/etc/target/saveconfig.json")
PROC, BLOCK = "/proc", "/sys/block"
GROUP = 1  # the target portal group that is ours
CHAP = ("userid", "password", "mutual_userid", "mutual_password")
OPTIONS = {
    "userid": "username",
    "password": "secret",
    "mutual_userid": "mutual_username",
    "mutual_password": "mutual_secret",
}
FILES = {**{name: name for name in CHAP[:2]}, "mutual_userid": "userid_mutual", "mutual_password": "password_mutual"}
UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
SECTOR = 512


class Refused(Exception):
    pass


# --- what is declared ------------------------------------------------------------------------------------------------


def bytes_of(text):
    """A size as libvirt reads it: ``G`` and ``GiB`` are powers of 1024, ``GB`` of 1000."""
    match = re.match(r"\s*([0-9]+)\s*([KMGTP]?)(iB|B|)\s*\Z", str(text))
    if not match:
        raise Refused(f"the size {text!r} is none: write it as 20G or 20GiB")
    size = int(match.group(1)) * (1000 if match.group(2) and match.group(3) == "B" else 1024) ** UNITS[match.group(2)]
    if not size or size % SECTOR:
        raise Refused(f"the size {text} is not a number of sectors of {SECTOR} bytes")
    return size


def portal_of(text):
    host, _colon, port = text.rpartition(":") if re.search(r"[^:]:[0-9]+\Z|\]:[0-9]+\Z", text) else (text, "", "")
    host = host.strip("[]")
    return "{}:{}".format(f"[{host}]" if ":" in host else host, port or "3260")


def declared_of(given):
    """The same with everything in one form; raises Refused."""
    present = given.get("state", "present") == "present"
    goal = {"iqn": given["iqn"], "present": present, "luns": {}, "acls": {}, "portals": [], "in_use": given["in_use"]}
    if not re.match(r"(iqn\.[0-9]{4}-[0-9]{2}\.[^.:]+\.[^:]+|eui\.[0-9A-Fa-f]{16}\Z|naa\.)", goal["iqn"]):
        raise Refused("{} is no name of a target: write it as iqn.2026-01.com.example:name".format(goal["iqn"]))
    for place, unit in enumerate(given["luns"]):
        lun = place if unit.get("lun") is None else unit["lun"]
        if lun in goal["luns"]:
            raise Refused(f"two units are declared as LUN {lun}")
        name = unit.get("name") or re.sub(r"[^\w.-]", "-", f"{goal['iqn'].rpartition(':')[2]}-{lun}")
        size = bytes_of(unit["size"]) if unit.get("size") else None
        there = present and unit.get("state", "present") == "present"
        goal["luns"][lun] = {"path": unit["path"], "name": name, "size": size, "present": there}
    for each in given["initiators"]:
        there = present and each.get("state", "present") == "present"
        goal["acls"][each["iqn"]] = {"present": there, "chap": _chap(each)}
    if present:
        goal["portals"] = [portal_of(each) for each in given["portals"]]
    wanted = [acl["chap"] for acl in goal["acls"].values() if acl["present"]]
    if any(wanted) and not all(wanted):
        raise Refused("some initiators have a secret and others have none: a target asks for it of all, or of nobody")
    goal["authentication"] = str(int(any(wanted))) if wanted else None
    return goal


def _chap(given):
    found = {name: given.get(option) or "" for name, option in OPTIONS.items()}
    for user, secret in (CHAP[:2], CHAP[2:]):
        if bool(found[user]) != bool(found[secret]):
            raise Refused("of initiator {}, {} goes with {}".format(given["iqn"], OPTIONS[user], OPTIONS[secret]))
    if found["mutual_userid"] and not found["userid"]:
        raise Refused("of initiator {}, mutual_secret goes with secret".format(given["iqn"]))
    return {name: value for name, value in found.items() if value}


# --- what is there ---------------------------------------------------------------------------------------------------


def read(*parts):
    try:
        with open(os.path.join(*parts), encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return ""


def names(*parts):
    try:
        return sorted(os.listdir(os.path.join(*parts)))
    except OSError:
        return []


def _link(directory):
    """Where the one link of a directory leads to."""
    found = [os.path.join(directory, name) for name in names(directory)]
    return next((os.path.realpath(path) for path in found if os.path.islink(path)), "")


def running(iqn):
    """What the kernel serves, in the form of ``saved``."""
    group = os.path.join(CONFIGFS, "iscsi", iqn, f"tpgt_{GROUP}")
    state = {"there": os.path.isdir(group), "objects": {}, "used": {}, "luns": {}, "acls": {}, "attributes": {}}
    for hba in names(CONFIGFS, "core"):
        for name in names(CONFIGFS, "core", hba):
            path = os.path.join(CONFIGFS, "core", hba, name)
            if os.path.isdir(path) and name != "alua":
                state["objects"][f"{_plugin(hba)}/{name}"] = read(path, "udev_path")
    for target in names(CONFIGFS, "iscsi"):
        for each in names(CONFIGFS, "iscsi", target):
            luns = os.path.join(CONFIGFS, "iscsi", target, each, "lun")
            for lun in names(luns):
                key = _key(_link(os.path.join(luns, lun)))
                state["used"].setdefault(key, []).append(f"{target}/{each}/{lun}")
                if (target, each) == (iqn, f"tpgt_{GROUP}"):
                    state["luns"][int(lun[4:])] = key
    state["portals"] = names(group, "np")
    state["enable"] = read(group, "enable") == "1"
    for name in ("authentication", "generate_node_acls"):
        state["attributes"][name] = read(group, "attrib", name)
    for acl in names(group, "acls"):
        path = os.path.join(group, "acls", acl)
        chap = {name: read(path, "auth", FILES[name]) for name in CHAP}
        links = [_link(os.path.join(path, lun)) for lun in names(path) if lun.startswith("lun_")]
        maps = {int(link.rpartition("lun_")[2]) for link in links if link}
        state["acls"][acl] = {"chap": {name: value for name, value in chap.items() if value != "NULL"}, "maps": maps}
    return state


def _plugin(hba):
    return {"iblock": "block"}.get(hba.rpartition("_")[0], hba.rpartition("_")[0])


def _key(path):
    hba, _slash, name = path.rpartition("/")
    return f"{_plugin(os.path.basename(hba))}/{name}"


def sessions(iqn):
    """Who is logged in."""
    group = os.path.join(CONFIGFS, "iscsi", iqn, f"tpgt_{GROUP}")
    infos = {acl: read(group, "acls", acl, "info") for acl in names(group, "acls")}
    known = [acl for acl, info in infos.items() if info and not info.startswith("No active")]
    return known + [each for each in re.split(r"[\s\0]+", read(group, "dynamic_sessions")) if each]


def saved(iqn, config):
    """What a boot restores, in the form of ``running``."""
    state = {"there": False, "objects": {}, "used": {}, "luns": {}, "acls": {}, "attributes": {}}
    state.update(portals=[], enable=False)
    for each in config.get("storage_objects", []):
        state["objects"]["{}/{}".format(each.get("plugin"), each.get("name"))] = each.get("dev", "")
    for target in config.get("targets", []):
        for group in target.get("tpgs", []):
            ours = target.get("wwn") == iqn and group.get("tag") == GROUP
            for lun in group.get("luns", []):
                key = lun["storage_object"].partition("/backstores/")[2]
                state["used"].setdefault(key, []).append(target.get("wwn"))
                if ours:
                    state["luns"][lun["index"]] = key
            if ours:
                state.update(there=True, enable=bool(group.get("enable")))
                state["portals"] = [
                    "{}:{}".format(each["ip_address"], each["port"]) for each in group.get("portals", [])
                ]
                attributes = group.get("attributes", {})
                state["attributes"] = {
                    name: str(int(value)) for name, value in attributes.items() if str(value).isdigit()
                }
                for acl in group.get("node_acls", []):
                    chap = {name: acl["chap_" + name] for name in CHAP if acl.get("chap_" + name)}
                    maps = {each["tpg_lun"] for each in acl.get("mapped_luns", [])}
                    state["acls"][acl["node_wwn"]] = {"chap": chap, "maps": maps}
    return state


def read_saved(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        raise Refused(f"{path} is no JSON: mend it, or put it away") from None


def saved_path():
    try:
        try:
            from rtslib_fb import root
        except ImportError:
            from rtslib import root
        return root.default_save_file
    except (ImportError, AttributeError):
        return next((path for path in SAVED if os.path.isdir(os.path.dirname(path))), SAVED[0])


# --- what that takes -------------------------------------------------------------------------------------------------


def steps_for(goal, state):
    """(verb, subject, words) of all that differs, in the order in which it is done. Raises Refused."""
    return _additions(goal, state) if goal["present"] else _removals(goal, state)


def _same(one, other):
    return os.path.realpath(one) == os.path.realpath(other)


def _lun_there(goal, state, lun):
    """Whether it is served as declared; raises Refused where it is another one."""
    unit, key = goal["luns"][lun], state["luns"].get(lun)
    if key is None:
        return False
    if not _same(state["objects"].get(key, ""), unit["path"]):
        raise Refused(
            "LUN {} of {} is {}: give {} another number, or take that one away first".format(
                lun, goal["iqn"], state["objects"].get(key) or key, unit["path"]
            )
        )
    return True


def _additions(goal, state):
    steps, iqn = [], goal["iqn"]
    if not state["there"]:
        steps.append(("target", iqn, f"the target {iqn}"))
    gone = [lun for lun, unit in goal["luns"].items() if not unit["present"] and _lun_there(goal, state, lun)]
    out = [acl for acl, each in goal["acls"].items() if not each["present"] and acl in state["acls"]]
    steps += [("drop acl", acl, f"without the initiator {acl}") for acl in out]
    steps += [("drop lun", lun, f"without LUN {lun}") for lun in gone]
    for lun, unit in sorted(goal["luns"].items()):
        if unit["present"] and not _lun_there(goal, state, lun):
            steps.append(("lun", lun, "LUN {}: {}".format(lun, unit["path"])))
    served = (set(state["luns"]) - set(gone)) | {lun for lun, unit in goal["luns"].items() if unit["present"]}
    attributes = {"authentication": goal["authentication"], "generate_node_acls": "0"}
    for name, value in sorted(attributes.items()):
        if value is not None and state["attributes"].get(name) != value:
            steps.append(("attribute", (name, value), f"{name}: {value}"))
    for acl, each in sorted(goal["acls"].items()):
        if each["present"]:
            steps += _access(acl, each["chap"], state["acls"].get(acl), served)
    steps += [("portal", each, f"the portal {each}") for each in goal["portals"] if each not in state["portals"]]
    if not state["enable"]:
        steps.append(("enable", iqn, "it lets initiators log in"))
    return steps


def _access(acl, chap, there, served):
    if there is None:
        yield "acl", acl, f"the initiator {acl}"
        there = {"chap": {}, "maps": set()}
    if any(there["chap"].get(name) != value for name, value in chap.items()):
        yield "chap", acl, f"the credentials of {acl}"
    for lun in sorted(served - there["maps"]):
        yield "map", (acl, lun), f"LUN {lun} for {acl}"


def _removals(goal, state):
    """What is declared goes; the target too, once it has nothing else."""
    iqn = goal["iqn"]
    if not state["there"]:
        return []
    luns = [lun for lun in sorted(goal["luns"]) if _lun_there(goal, state, lun)]
    acls = [acl for acl in sorted(goal["acls"]) if acl in state["acls"]]
    steps = [("drop acl", acl, f"without the initiator {acl}") for acl in acls]
    steps += [("drop lun", lun, f"without LUN {lun}") for lun in luns]
    if set(luns) == set(state["luns"]) and set(acls) == set(state["acls"]):
        steps.append(("drop target", iqn, f"without the target {iqn}"))
    return steps


def check(goal, state, real):
    """Raises Refused for what must not, or can't, be done to what runs."""
    for lun, unit in goal["luns"].items():
        if unit["present"] and lun not in state["luns"]:
            _check_unit(goal, unit, state, real)
    steps = steps_for(goal, state)
    leaving = [step for step in steps if step[0].startswith("drop")]
    there = [] if goal["in_use"] else sessions(goal["iqn"])
    if any(step[0] != "drop acl" for step in leaving) and there:
        raise Refused(
            "{} are logged in to {}: take their pools back first, or allow in_use".format(", ".join(there), goal["iqn"])
        )
    away = [step[1] for step in leaving if step[1] in there]
    if away:
        raise Refused("{} are logged in: take their pools back first, or allow in_use".format(", ".join(away)))
    shut = _shut_out(goal, state, dict(step[1] for step in steps if step[0] == "attribute"), there)
    if shut:
        raise Refused(
            "{} are logged in to {}, and would not be let in again: list them{}, take their pools back first, or allow "
            "in_use".format(", ".join(shut), goal["iqn"], " with a secret" if goal["authentication"] == "1" else "")
        )


def _shut_out(goal, state, attributes, there):
    """Who of those that are logged in could not come back once the attributes have changed, such as after a reboot."""
    known = {name: dict(each["chap"]) for name, each in state["acls"].items()}
    for name, each in goal["acls"].items():
        if each["present"]:
            known.setdefault(name, {}).update(each["chap"])
    strangers = [name for name in there if name not in known and "generate_node_acls" in attributes]
    asked = [name for name in there if name in known and attributes.get("authentication") == "1"]
    return strangers + [name for name in asked if not known[name].get("userid")]


def _check_unit(goal, unit, state, real):
    path = unit["path"]
    for key, have in state["objects"].items():
        users = [each for each in state["used"].get(key, []) if not each.startswith(goal["iqn"] + "/")]
        if have and _same(have, path) and users:
            raise Refused("{} is served already, by {} ({})".format(path, ", ".join(users), key))
        if key.partition("/")[2] == unit["name"] and not _same(have, path):
            raise Refused(
                "the name {} is that of {} already: give {} a name of its own".format(unit["name"], have, path)
            )
    if not path.startswith("/"):
        raise Refused(f"{path} is no absolute path")
    if os.path.exists(path):
        mode = os.stat(path).st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise Refused(f"{path} is neither a device nor a file")
        have = os.stat(path).st_size
        if stat.S_ISREG(mode) and unit["size"] is not None and unit["size"] < have:
            raise Refused(f"{path} has {have} bytes, more than declared: nothing is cut off a file")
        ours = any(have and _same(have, path) for have in state["objects"].values())
        having = [] if ours or goal["in_use"] else list(_users(path))
        if having:
            raise Refused("{} is in use by {}: free it first".format(path, ", ".join(having)))
    elif real and path.startswith("/dev/"):
        raise Refused(f"there is no device {path}")
    elif real and not os.path.isdir(os.path.dirname(path)):
        raise Refused(f"there is no directory for {path}")
    elif not path.startswith("/dev/") and unit["size"] is None:
        raise Refused(f"there is no file {path}: say how large it is to be (size), and it is made")


def _users(path):
    """Who has a device or a file now, other than the kernel's own target. Of processes with a device, those that may
    write count: many look at devices.
    """
    status = os.stat(path)
    device = stat.S_ISBLK(status.st_mode)
    if device:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            yield "the kernel (it is mounted, swapped to, or part of another device)"
    for name in names(BLOCK):
        if _is(read(BLOCK, name, "loop", "backing_file"), status):
            yield f"/dev/{name}"
    for line in read(PROC, "swaps").splitlines()[1:]:
        if not device and _is(line.split()[0].replace("\\040", " "), status):
            yield "the kernel, as swap"
    for pid in filter(str.isdigit, names(PROC)):
        if any(_has(pid, number, status) for number in names(PROC, pid, "fd")):
            yield "process {} ({})".format(pid, read(PROC, pid, "comm"))


def _has(pid, number, status):
    """Whether a descriptor is of that file. What is not is mostly told without its filesystem, which may hang."""
    info = dict(re.findall(r"(?m)^(flags|ino):\s+(\S+)", read(PROC, pid, "fdinfo", number)))
    if stat.S_ISBLK(status.st_mode):
        if int(info.get("flags", "0"), 8) & os.O_ACCMODE == os.O_RDONLY or "/dev/" not in _target(
            PROC, pid, "fd", number
        ):
            return False
    elif info.get("ino", str(status.st_ino)) != str(status.st_ino):
        return False
    return _is(os.path.join(PROC, pid, "fd", number), status)


def _target(*parts):
    try:
        return os.readlink(os.path.join(*parts))
    except OSError:
        return ""


def _is(path, status):
    try:
        other = os.stat(path)
    except OSError:
        return False
    if stat.S_ISBLK(status.st_mode):
        return stat.S_ISBLK(other.st_mode) and other.st_rdev == status.st_rdev
    return os.path.samestat(other, status)


def notes_of(goal, state):
    """What is declared and not done."""
    for lun, unit in sorted(goal["luns"].items()):
        have = state["objects"].get(state["luns"].get(lun)) or ""
        if unit["present"] and unit["size"] and os.path.isfile(have) and os.path.getsize(have) < unit["size"]:
            yield (
                f"LUN {lun} keeps its size, {os.path.getsize(have)} bytes: a file is made longer when it is served "
                "anew (state: absent, then present)"
            )


# --- doing it --------------------------------------------------------------------------------------------------------


class Kernel:
    """Does the steps, by rtslib."""

    def __init__(self, goal):
        try:
            try:
                import rtslib_fb as rtslib
            except ImportError:
                import rtslib
        except ImportError:
            raise Refused(f"{sys.executable} has no rtslib: install targetcli and what belongs to it") from None
        self._lib, self._goal = rtslib, goal
        directory = os.path.dirname(saved_path())
        os.makedirs(directory, mode=0o700, exist_ok=True)  # the kernel's own database is there too
        self.root = rtslib.RTSRoot()

    def _target(self):
        return self._lib.Target(self._lib.FabricModule("iscsi"), self._goal["iqn"])

    def _group(self):
        return self._lib.TPG(self._target(), GROUP)

    def do(self, verb, subject):
        if verb == "drop target":
            return self._drop_target()
        group = self._group()
        if verb == "lun":
            self._lib.LUN(group, subject, self._object(self._goal["luns"][subject]))
        elif verb == "attribute":
            group.set_attribute(*subject)
        elif verb == "acl":
            self._lib.NodeACL(group, subject)
        elif verb == "chap":
            acl = self._lib.NodeACL(group, subject)
            for name, value in self._goal["acls"][subject]["chap"].items():
                setattr(acl, "chap_" + name, value)
        elif verb == "map":
            self._lib.MappedLUN(self._lib.NodeACL(group, subject[0]), subject[1], subject[1], False)
        elif verb == "portal":
            host, _colon, port = subject.rpartition(":")
            self._lib.NetworkPortal(group, host, int(port))
        elif verb == "enable":
            group.enable = True
        elif verb == "drop acl":
            self._lib.NodeACL(group, subject, mode="lookup").delete()
        elif verb == "drop lun":
            self._drop_lun(group, subject)
        return None

    def _object(self, unit):
        """The storage object of a unit; a file is made, or made longer, for it."""
        path = unit["path"]
        for each in self.root.storage_objects:
            if each.udev_path and _same(each.udev_path, path):
                return each
        if os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode):
            return self._lib.BlockStorageObject(unit["name"], path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = max(os.fstat(descriptor).st_size, unit["size"] or 0)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        return self._lib.FileIOStorageObject(unit["name"], path, size - size % SECTOR)

    def _drop_lun(self, group, number):
        lun = self._lib.LUN(group, number)
        held = lun.storage_object
        lun.delete()
        if not any(True for _lun in held.attached_luns):
            held.delete()

    def _drop_target(self):
        group, target = self._group(), self._target()
        group.delete()
        if not any(True for _group in target.tpgs):
            target.delete()

    def dump(self):
        return self.root.dump()


def save(path, config, now, iqn):
    """Replaces of what is saved only the target ``iqn`` and what it serves, or served."""
    ours = {key for source in (config, now) for key in saved(iqn, source)["luns"].values()}
    elsewhere = {
        key for key, users in saved(iqn, config)["used"].items() if key in ours and any(each != iqn for each in users)
    }

    def is_ours(each):
        return "{}/{}".format(each.get("plugin"), each.get("name")) in ours - elsewhere

    merged = dict(config)
    kept = [each for each in config.get("storage_objects", []) if not is_ours(each)]
    merged["storage_objects"] = kept + [each for each in now.get("storage_objects", []) if is_ours(each)]
    others = [each for each in config.get("targets", []) if each.get("wwn") != iqn]
    merged["targets"] = others + [each for each in now.get("targets", []) if each.get("wwn") == iqn]
    merged.setdefault("fabric_modules", [])
    staged = path + ".virt-storage"
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(merged, file, sort_keys=True, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(staged, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _is_unsaved(goal, config):
    try:
        return bool(steps_for(goal, saved(goal["iqn"], config)))
    except Refused:  # what is saved has something else in its place
        return True


def converge(given, said):
    goal, path = declared_of(given), saved_path()
    config = read_saved(path)
    state = running(goal["iqn"])
    check(goal, state, not given["check"])
    steps = steps_for(goal, state)
    said["done"] = [words for _verb, _subject, words in steps]
    said["notes"] = list(notes_of(goal, state))
    unsaved = _is_unsaved(goal, config)
    if not steps and unsaved:
        said["done"] = ["what is served is saved, so that it is there after a boot"]
    said["changed"] = bool(steps) or unsaved
    if given["check"] or not said["changed"]:
        return
    said["changed"], done = False, said.pop("done")
    kernel = Kernel(goal)
    for verb, subject, words in steps:
        try:
            kernel.do(verb, subject)
        except Exception as error:  # rtslib's own, and whatever it lets through
            raise Refused(f"{words}: {error}") from error
        said["changed"] = True
    save(path, config, kernel.dump(), goal["iqn"])
    said.update(changed=True, done=done)


def main():
    said = {"changed": False, "done": [], "notes": [], "error": ""}
    try:
        converge(json.load(sys.stdin), said)
    except (Refused, OSError) as error:
        said["error"] = str(error)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
