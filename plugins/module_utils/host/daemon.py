# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""A libvirt daemon: one connection, looked through inside a deadline, changed by calls (libvirt-storage API)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from ..model.errors import StorageError
from .peers import uri_of_secrets

_POLL_SECONDS = 0.1


class PoolLook(NamedTuple):
    """``definition`` is the XML that counts from the next start on, ``live`` that of the running pool. ``usage``:
    capacity, allocation and available in bytes.
    """

    active: bool
    autostart: bool
    definition: str | None
    live: str | None
    usage: tuple[int, int, int] | None


class Daemon:
    """One connection per task: a read-only one, by which the daemon lets nobody change anything, or one to change."""

    def __init__(self, uri: str, timeout: float, why: str = "") -> None:
        self.uri = uri
        self.why = why
        self.timeout = timeout
        self._connection: Any = None
        self._secrets: Any = None
        self._changing = False
        self._library: Any = None

    # --- the connection ----------------------------------------------------------------------------------------------

    def open(self, changing: bool) -> None:
        """Raises ``library_missing``, ``daemon_down`` or ``deadline``."""
        self._library = _library()
        self._changing = changing
        try:
            self._connection = self._within(lambda: self._connect(self.uri))
        except self._library.libvirtError as error:
            from .daemon_errors import no_connection

            raise no_connection(self._library, self.uri, self.why, error) from None

    def _connect(self, uri: str) -> Any:
        return self._library.open(uri) if self._changing else self._library.openReadOnly(uri)

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def close(self) -> None:
        for connection in (self._secrets, self._connection):
            if connection is not None and connection.isAlive() == 1:
                connection.close()
        self._connection = self._secrets = None

    def _within(self, look: Callable[[], Any]) -> Any:
        """The value of ``look``. Raises ``deadline`` where it takes longer than may be; it is left to itself then."""
        try:
            return self._finished(*self._begin(look))
        except StorageError:
            self._abandon()
            raise

    def _waiting(self, work: Callable[[], Any]) -> None:
        """Carries out what may take long. Raises ``deadline`` where the daemon answers nobody any more."""
        thread, answer = self._begin(work)
        while True:
            try:
                self._finished(thread, answer)
                return
            except StorageError as error:
                if error.code != "deadline":
                    raise  # its own
                if not self._answers():
                    self._abandon()
                    raise

    @staticmethod
    def _begin(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
        answer: list[Any] = []

        def ask() -> None:
            try:
                answer.append((work(), None))
            except Exception as error:  # handed over to who asked
                answer.append((None, error))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread, answer

    def _finished(self, thread: threading.Thread, answer: list[Any]) -> Any:
        thread.join(self.timeout)
        if not answer:
            raise StorageError(
                "deadline",
                f"the daemon of {self.uri} did not answer within {self.timeout:g} s",
                subject=self.uri,
                hint="Look at the daemon, or give the task a longer timeout.",
            )
        value, error = answer[0]
        if error is not None:
            raise error
        return value

    def _abandon(self) -> None:
        """Forgets a connection that hangs: to close it would hang too, and so would Python at its end."""
        if self._connection is not None:
            self._connection._o = None  # pylint: disable=protected-access
            self._connection = None
        if self._secrets is not None:
            self._secrets._o = None  # pylint: disable=protected-access
            self._secrets = None

    def _look(self, subject: str, look: Callable[[Any], Any]) -> Any:
        if self._connection is None:
            self.open(changing=False)
        connection = self._connection
        try:
            return self._within(lambda: look(connection))
        except self._library.libvirtError as error:
            raise self._failure(error, subject, "") from None

    def _failure(self, error: Any, subject: str, command: str) -> StorageError:
        if self._connection is None or self._connection.isAlive() != 1:
            return StorageError(
                "daemon_lost",
                f"the daemon of {self.uri} went away: {error}",
                subject=subject,
                hint="Run the task again when it is back: what is not done yet is done then.",
                command=command,
            )
        from .daemon_errors import refusal

        return refusal(error, subject, command)

    # --- looking -----------------------------------------------------------------------------------------------------

    def capabilities(self) -> str | None:
        """The XML that says which pool types the daemon supports; None where it can't say."""

        def look(connection: Any) -> str | None:
            try:
                return str(connection.getStoragePoolCapabilities())
            except self._library.libvirtError as error:
                if error.get_error_code() == self._library.VIR_ERR_NO_SUPPORT:
                    return None
                raise

        return self._look(self.uri, look)  # type: ignore[no-any-return]

    def pool_names(self) -> list[str]:
        return self._look(self.uri, lambda c: sorted(pool.name() for pool in c.listAllStoragePools()))  # type: ignore[no-any-return]

    def definitions(self, but: str) -> list[tuple[str, bool]]:
        """The XML of every other pool, and of those that run that of what runs: which of the two it is."""

        def look(connection: Any) -> list[tuple[str, bool]]:
            others = [pool for pool in connection.listAllStoragePools() if pool.name() != but]
            running = [(str(pool.XMLDesc(0)), True) for pool in others if pool.isActive()]
            return [*((self._definition(pool), False) for pool in others if pool.isPersistent()), *running]

        return self._look(self.uri, look)  # type: ignore[no-any-return]

    def _definition(self, pool: Any) -> str:
        try:
            return str(pool.XMLDesc(self._library.VIR_STORAGE_XML_INACTIVE if pool.isPersistent() else 0))
        except self._library.libvirtError as error:
            if error.get_error_code() != self._library.VIR_ERR_INVALID_ARG:
                raise
            return str(pool.XMLDesc(0))  # libvirt's test driver has but one

    def pool(self, name: str) -> PoolLook | None:
        """None when there is no such pool."""

        def look(connection: Any) -> PoolLook | None:
            try:
                pool = connection.storagePoolLookupByName(name)
            except self._library.libvirtError as error:
                if error.get_error_code() == self._library.VIR_ERR_NO_STORAGE_POOL:
                    return None
                raise
            active = bool(pool.isActive())
            return PoolLook(
                active,
                bool(pool.autostart()),
                self._definition(pool) if pool.isPersistent() else None,
                str(pool.XMLDesc(0)) if active else None,
                tuple(pool.info()[1:4]) if active else None,
            )

        return self._look(f"pool {name}", look)  # type: ignore[no-any-return]

    def volume_names(self, pool: str) -> frozenset[str]:
        """What an active pool lists, from the daemon's memory."""

        def look(connection: Any) -> frozenset[str]:
            of = connection.storagePoolLookupByName(pool)
            try:
                return frozenset(of.listVolumes())
            except UnicodeDecodeError:
                return frozenset(filter(None, map(_volume_name, of.listAllVolumes())))

        return self._look(f"pool {pool}", look)  # type: ignore[no-any-return]

    def volumes(self, pool: str, names: Sequence[str] | None) -> list[str]:
        """The XML of the named volumes that there are, or of all. One that goes away meanwhile is left out."""

        def look(connection: Any) -> list[str]:
            of = connection.storagePoolLookupByName(pool)
            if names is None:
                return [text for text in map(self._text, of.listAllVolumes()) if text is not None]
            found = (self._lookup(of.storageVolLookupByName, name) for name in names)
            return [text for text in (self._text(volume) for volume in found if volume is not None) if text is not None]

        return self._look(f"pool {pool}", look)  # type: ignore[no-any-return]

    def volume_at(self, path: str) -> str | None:
        """The XML of the volume of any active pool that is at ``path``."""

        def look(connection: Any) -> str | None:
            volume = self._lookup(connection.storageVolLookupByPath, path)
            return None if volume is None else self._text(volume)

        return self._look(path, look)  # type: ignore[no-any-return]

    def _lookup(self, lookup: Callable[[str], Any], key: str) -> Any:
        try:
            return lookup(key)
        except self._library.libvirtError as error:
            if error.get_error_code() == self._library.VIR_ERR_NO_STORAGE_VOL:
                return None
            raise

    def _text(self, volume: Any) -> str | None:
        try:
            return str(volume.XMLDesc(0))
        except self._library.libvirtError as error:
            if error.get_error_code() == self._library.VIR_ERR_NO_STORAGE_VOL:
                return None
            raise

    def guests(self) -> list[str] | None:
        """The XML of every guest, as it runs and as it will, and of its snapshots; None where the connection has none:
        it may be one to the storage driver alone.
        """

        def look(connection: Any) -> list[str] | None:
            try:
                guests = connection.listAllDomains()
                defined = [guest for guest in guests if guest.isPersistent() and guest.isActive()]
                next_start = [str(guest.XMLDesc(self._library.VIR_DOMAIN_XML_INACTIVE)) for guest in defined]
                with_some = connection.listAllDomains(self._library.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT)
                snapshots = [str(each.getXMLDesc()) for guest in with_some for each in guest.listAllSnapshots()]
                return [*(str(guest.XMLDesc(0)) for guest in guests), *next_start, *snapshots]
            except self._library.libvirtError as error:
                if error.get_error_code() == self._library.VIR_ERR_NO_SUPPORT:
                    return None
                raise

        return self._look(self.uri, look)  # type: ignore[no-any-return]

    def find_sources(self, kind: str, query: str | None) -> str:
        """The XML of what pools of a type could be made from, as the daemon finds it. Who may only read may not ask
        (libvirt-storage: virConnectFindStoragePoolSources).
        """
        if not self.is_open:
            self.open(changing=True)

        def look(connection: Any) -> str:
            return str(connection.findStoragePoolSources(kind, query, 0))

        return self._look(self.uri, look)  # type: ignore[no-any-return]

    def secret(self, kind: str, uuid: str | None, usage: str | None) -> str | None:
        """The XML of a secret, by its uuid or by what it is used by; None when there is none. Raises ``daemon_cannot``
        where the connection has none at all.
        """

        def look(connection: Any) -> str | None:
            connection = self._with_secrets(connection)
            number = getattr(self._library, f"VIR_SECRET_USAGE_TYPE_{kind.upper()}")
            try:
                if uuid is not None:
                    return str(connection.secretLookupByUUIDString(uuid).XMLDesc(0))
                return str(connection.secretLookupByUsage(number, usage).XMLDesc(0))
            except self._library.libvirtError as error:
                if error.get_error_code() == self._library.VIR_ERR_NO_SECRET:
                    return None
                raise

        return self._look("the secrets", look)  # type: ignore[no-any-return]

    def _with_secrets(self, connection: Any) -> Any:
        """A connection to the storage driver alone has no secrets: those are another driver's."""
        uri = uri_of_secrets(self.uri)
        if uri == self.uri:
            return connection
        self._secrets = self._secrets or self._connect(uri)
        return self._secrets

    def secret_value(self, uuid: str) -> tuple[bytes | None, bool]:
        """The value of a secret, and whether it can be told. It is only to who may change things
        (libvirt-secret: virSecretGetValue), so that it is asked for by a connection of its own.
        """

        def look(_connection: Any) -> tuple[bytes | None, bool]:
            connection = self._library.open(uri_of_secrets(self.uri))
            try:
                return bytes(connection.secretLookupByUUIDString(uuid).value(0)), True
            except self._library.libvirtError as error:
                return None, error.get_error_code() == self._library.VIR_ERR_NO_SECRET
            finally:
                connection.close()

        try:
            return self._look("the secrets", look)  # type: ignore[no-any-return]
        except StorageError as error:
            if error.code in ("deadline", "daemon_lost"):
                raise
            return None, False

    # --- changing ----------------------------------------------------------------------------------------------------

    def call(self, op: Any) -> None:
        """Carries out a DaemonCall, however long that takes while the daemon answers others. A pool or volume that is
        busy is waited for. Raises StorageError.
        """
        deadline = time.monotonic() + self.timeout
        subject = f"pool {op.pool}" if op.volume is None else f"volume {op.pool}/{op.volume}"
        while True:
            try:
                self._waiting(lambda: self._carry_out(op))
                return
            except self._library.libvirtError as error:
                from ..model.private import hidden
                from .daemon_errors import is_busy, not_started

                if not is_busy(error) or time.monotonic() >= deadline:
                    failure = self._failure(error, subject, op.command)
                    if op.verb == "pool-start":
                        failure.message = hidden(failure.message, op.told)
                        failure.hint = not_started() if failure.code == "daemon_failed" else failure.hint
                    if op.verb == "pool-refresh" and failure.code != "daemon_lost":
                        self._explain_stopped(failure, op.pool)
                    raise failure from None
            except OSError as error:
                raise StorageError(
                    "not_readable",
                    str(error),
                    subject=str(error.filename or subject),
                    hint="Look at the file that is uploaded, or run as a user who may read it (become: true).",
                ) from None
            time.sleep(_POLL_SECONDS)

    def _carry_out(self, op: Any) -> None:
        from .daemon_calls import CALLS

        of_secrets = op.verb.startswith("secret-")
        connection = self._with_secrets(self._connection) if of_secrets else self._connection
        CALLS[op.verb](self._library, connection, op)

    def _explain_stopped(self, failure: StorageError, pool: str) -> None:
        """A look that fails stops the pool (libvirt, storage driver: refresh)."""
        look = self.pool(pool)
        if look is None or not look.active:
            failure.message += f"; it has stopped pool {pool}, whose files are as they were"
            failure.hint = (
                "Find what it can't read (storage_volume_info with uri native:///system shows a problem), move it "
                "away, and start the pool again (state: active)."
            )

    def _answers(self) -> bool:
        """Whether the daemon still takes and answers other connections. Only asking can tell: a call may take long."""

        def ask() -> None:
            connection = self._library.openReadOnly(self.uri)
            connection.getLibVersion()
            connection.close()

        try:
            self._finished(*self._begin(ask))
        except StorageError:
            return False
        except self._library.libvirtError:
            return True  # it is gone, which ends the call too
        return True


def _volume_name(volume: Any) -> str:
    """Empty for a name that is no text."""
    try:
        return str(volume.name())
    except UnicodeDecodeError:
        return ""


def _library() -> Any:
    try:
        import libvirt
    except ImportError:
        from ..model.packages import installing

        raise StorageError(
            "library_missing",
            "the Python library libvirt is not installed on this host",
            subject="libvirt",
            hint=f"Install it: {installing('libvirt for Python')}.",
        ) from None
    libvirt.registerErrorHandler(lambda context, error: None, None)  # it would print to stderr
    return libvirt
