# SPDX-License-Identifier: Apache-2.0
"""Reading and replacing files and directories, so that nothing is lost and nothing is half there.

What is written is written beside its place first, under a name that :func:`is_temporary` knows, and
takes its place in one step when it is whole and on the disk. Who is killed before leaves the
temporary behind; nobody reads it, and who writes into the same directory next removes it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias

from .errors import ArtifactError, ModelHashError, OutputError, RemoteError
from .limits import check_file_size
from .progress import hashing

if TYPE_CHECKING:
    from .remote.objects import Object, State

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_IS_WINDOWS = os.name == "nt"

_CHUNK_BYTES = 1024 * 1024

# The drive of a path on Windows has one letter.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)

# The objects at URLs that were opened in a block of one_version, and whether one may be transferred
# whole.
_objects: ContextVar[dict[str, Object] | None] = ContextVar("objects", default=None)
_may_download: ContextVar[bool] = ContextVar("may_download", default=False)

_SUFFIX = ".tvm-model-hash-tmp"
_TEMPORARY = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(_SUFFIX)}")
_LOCK_NAME = f".lock{_SUFFIX}"

# How long to wait for another process, in seconds: for one that writes into the directory, and for
# one that has the file open, which keeps it from being replaced on Windows.
_LOCK_SECONDS = 60.0
_OPEN_SECONDS = 1.0
_POLL_SECONDS = 0.02


def is_url(path: str) -> bool:
    """Whether a path is a URL, behind which fsspec reads: ``s3://bucket/model.onnx`` for example.

    Parameters
    ----------
    path : str
        Any path.

    Returns
    -------
    is_url : bool
    """
    return _URL.match(path) is not None


def open_regular(path: str, follow_symlinks: bool = True) -> BinaryIO:
    """Open a regular file for reading; nothing else is opened, and nothing blocks.

    Parameters
    ----------
    path : str
        The file to open, or the URL of an object.
    follow_symlinks : bool
        Whether the path may end in a symbolic link.

    Returns
    -------
    file : file object
        The file, opened for reading bytes. Of an object only what is read is transferred.

    Raises
    ------
    ArtifactError
        If the file does not exist, is not a regular one, or cannot be read.
    RemoteError
        If an object cannot be read, is no longer the one that was opened, or what is needed to read
        it is not installed.
    """
    if is_url(path):
        return _open_object(path)
    flags = os.O_RDONLY | _flag("O_BINARY") | _flag("O_NONBLOCK")
    if not follow_symlinks:
        flags |= _flag("O_NOFOLLOW")
    try:
        # Asked before, because to open a device can already do something to it.
        _check_regular(path, os.stat(path, follow_symlinks=follow_symlinks))
        file = open(os.open(path, flags), "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from error
    try:
        _check_regular(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def file_sha256(path: str, follow_symlinks: bool = True) -> tuple[int, str]:
    """Hash a regular file, with progress.

    Parameters
    ----------
    path : str
        The file.
    follow_symlinks : bool
        Whether the path may end in a symbolic link.

    Returns
    -------
    size : int
        Its size in bytes.
    sha256 : str
        64 lowercase hexadecimal digits.

    Raises
    ------
    ArtifactError, RemoteError
        If the file cannot be read, is not a regular one, or is written to meanwhile.
    """
    digest = hashlib.sha256()
    size = 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with open_regular(path, follow_symlinks) as file:
        before = state_of(file)
        check_file_size(path, before.size)
        with hashing(before.size, name_of(path), is_url(path)) as progress:
            try:
                while count := file.readinto(buffer):  # type: ignore[attr-defined]
                    digest.update(buffer[:count])
                    size += count
                    progress.update(count)
            except OSError as error:
                raise _cannot_read(path, error) from error
        check_unchanged(path, file, before)
    return size, digest.hexdigest()


class FileState(NamedTuple):
    """By what one notices that a file was replaced or written to.

    Parameters
    ----------
    device, inode : int
        Which file it is.
    size : int
        In bytes.
    time : int
        When it was last written to, in nanoseconds.
    """

    device: int
    inode: int
    size: int
    time: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Take it from what the system says of a file.

        Parameters
        ----------
        status : os.stat_result
            Of the file.

        Returns
        -------
        state : FileState
        """
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


#: The state of a file or of an object.
AnyState: TypeAlias = "FileState | State"


def state_of(file: BinaryIO) -> AnyState:
    """Take the state of an open file.

    Parameters
    ----------
    file : file object
        The file, from :func:`open_regular`.

    Returns
    -------
    state : FileState, or State of an object
        Each has a ``size``, and equals that of the same content only.

    Raises
    ------
    RemoteError
        If a store is asked for it and does not say, as it is outside of :func:`one_version`.
    """
    remote: AnyState | None = getattr(file, "state", None)
    return FileState.of(os.fstat(file.fileno())) if remote is None else remote


def check_unchanged(path: str, file: BinaryIO, before: AnyState) -> None:
    """Make sure that what was read of a file was one content.

    Parameters
    ----------
    path : str
        Its path, for the message.
    file : file object
        The file, open.
    before : FileState or State
        Its state before it was read.

    Raises
    ------
    ArtifactError, RemoteError
        If it was written to or cut meanwhile.
    """
    if state_of(file) != before:
        error = RemoteError if is_url(path) else ArtifactError
        raise error(
            f"{path!r} was written to while it was read: try again when nobody writes to it"
        )


@contextmanager
def one_version() -> Iterator[None]:
    """Read an object at a URL in one version, however often it is opened in the block.

    What was transferred of it is not transferred again, as long as it is at hand. Files are not
    affected.

    Raises
    ------
    RemoteError
        If an object changed before the block ended, whatever that found in it.
    """
    if _objects.get() is not None:  # in the block of a caller, which is the one that counts
        yield
        return
    opened: dict[str, Object] = {}
    token = _objects.set(opened)
    try:
        try:
            yield
        except ModelHashError as error:
            if not isinstance(error, RemoteError):
                for source in opened.values():
                    source.check_unchanged()
            raise
        for source in opened.values():
            source.check_unchanged()
    finally:
        _objects.reset(token)


@contextmanager
def downloading() -> Iterator[None]:
    """Transfer whole what a server gives no parts of, instead of an error.

    Each is kept in a temporary file of this process, which is gone when it is no longer needed.
    """
    token = _may_download.set(True)
    try:
        yield
    finally:
        _may_download.reset(token)


def is_directory(path: str) -> bool:
    """Whether a directory is at a path.

    Parameters
    ----------
    path : str
        A path, or a URL.

    Returns
    -------
    is_directory : bool

    Raises
    ------
    RemoteError
        If a store does not say.
    """
    if is_url(path):
        from .remote import store

        return store.is_directory(path)
    return os.path.isdir(path)


def join(directory: str, name: str) -> str:
    """Make the path of what has a name below a directory.

    Parameters
    ----------
    directory : str
        The directory, or its URL.
    name : str
        The name, with ``/`` between its parts.

    Returns
    -------
    path : str
    """
    if is_url(directory):
        from .remote import store

        return store.join(directory, name)
    return os.path.join(directory, name)


def directory_of(path: str) -> str:
    """Make the path of the directory that a file lies in.

    Parameters
    ----------
    path : str
        The file's, or its URL.

    Returns
    -------
    directory : str
    """
    if is_url(path):
        from .remote import store

        return store.parent(path)
    return os.path.dirname(path)


def name_of(path: str) -> str:
    """Take the last part of a path, to show it.

    Parameters
    ----------
    path : str
        A path, or a URL, of which secrets are left out.

    Returns
    -------
    name : str
    """
    return os.path.basename(path.partition("?")[0] if is_url(path) else path)


def is_pattern(path: str) -> bool:
    """Whether a path is a URL that may stand for several, as in ``s3://bucket/models/*``.

    Parameters
    ----------
    path : str
        A path, in which a shell has replaced such patterns already, or a URL.

    Returns
    -------
    is_pattern : bool
    """
    if not is_url(path):
        return False
    from .remote import store

    return store.is_pattern(path)


def expand(path: str) -> list[str]:
    """Find what a URL stands for.

    Parameters
    ----------
    path : str
        A path or a URL.

    Returns
    -------
    paths : list of str
        The path itself, unless it is a pattern and something fits.

    Raises
    ------
    RemoteError
        If a directory can't be listed.
    """
    if not is_pattern(path):
        return [path]
    from .remote import store

    return store.expand(path)


def regular_size(path: str) -> int:
    """How many bytes a regular file has, without opening it where that can be.

    Parameters
    ----------
    path : str
        The file, or the URL of an object.

    Returns
    -------
    size : int

    Raises
    ------
    ArtifactError
        If the file does not exist or is not a regular one.
    RemoteError
        If an object cannot be read.
    """
    if is_url(path):
        with _open_object(path) as file:
            return file.source.state.size
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        raise _cannot_read(path, error) from error
    _check_regular(path, status)
    return status.st_size


def refuse_url(path: str) -> None:
    """Refuse to write behind a URL.

    Parameters
    ----------
    path : str
        What is to be written.

    Raises
    ------
    OutputError
        If it is a URL.
    """
    if is_url(path):
        raise OutputError(
            f"cannot write {path!r}: it is a URL, behind which is only read. Write to this "
            "machine, and copy that there"
        )


def is_temporary(name: str) -> bool:
    """Whether a file or directory is one that this package had not finished to write.

    Parameters
    ----------
    name : str
        The name, without directories.

    Returns
    -------
    is_temporary : bool
    """
    return name == _LOCK_NAME or _TEMPORARY.fullmatch(name) is not None


def mode_of(entry: os.DirEntry[str]) -> int:
    """What an entry of a directory is.

    Parameters
    ----------
    entry : os.DirEntry
        The entry.

    Returns
    -------
    mode : int
        Its mode; of a symbolic link the link's own, and of a junction, the links between
        directories that Windows has, that of a symbolic link.

    Raises
    ------
    OSError
        If the system can't tell.
    """
    status = entry.stat(follow_symlinks=False)
    return stat.S_IFLNK if _is_junction(status) else status.st_mode


@contextmanager
def replacing(path: str, mode: int | None = None) -> Iterator[BinaryIO]:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Parameters
    ----------
    path : str
        The file to create or replace.
    mode : int, optional
        The permissions that it gets; by default those that the user's umask asks for.

    Yields
    ------
    file : file object
        What is written to it becomes the content of the file when the block ends. If the block
        raises, what was there stays.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there is unchanged.
    """
    with replacing_path(path, mode) as temporary, open(temporary, "wb") as file:
        yield file


@contextmanager
def replacing_path(path: str, mode: int | None = None) -> Iterator[str]:
    """Let something write a file that takes a path; else as :func:`replacing`.

    Parameters
    ----------
    path : str
        The file to create or replace.
    mode : int, optional
        The permissions that it gets; by default those that the user's umask asks for.

    Yields
    ------
    temporary : str
        The path of an empty file in the same directory, to be written to and closed. It takes the
        place of ``path`` when the block ends. If the block raises, it is removed.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there is unchanged.
    """
    # In the same directory, because a rename is atomic within a file system only.
    directory = os.path.dirname(path) or os.curdir
    with _writing(path):
        _remove_stale(directory)
        temporary, descriptor = _new_file(directory)
        try:
            try:
                yield temporary
                if mode is not None:
                    os.chmod(temporary, mode)
                os.fsync(descriptor)
                if not _IS_WINDOWS:  # where no open file can be renamed
                    os.replace(temporary, path)
            finally:
                os.close(descriptor)
            if _IS_WINDOWS:
                _retrying(lambda: os.replace(temporary, path))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(directory)


@contextmanager
def new_directory(path: str, overwrite: bool = False) -> Iterator[str]:
    """Make a directory with all its files, or nothing.

    Parameters
    ----------
    path : str
        The directory to make, with those above it. An empty one that exists is replaced, and its
        permissions stay.
    overwrite : bool
        Whether one that is not empty is replaced too, with all that is in it.

    Yields
    ------
    temporary : str
        A directory in the same file system, which takes its place when the block ends. If the block
        raises, it is removed, and what was there stays.

    Raises
    ------
    OutputError
        If there is something other than a directory that may be replaced, or the place cannot be
        written.
    """
    path = path.rstrip(os.sep + (os.altsep or "")) or path
    parent, name = os.path.split(path)
    parent = parent or os.curdir
    with _writing(path), _directories(parent):
        _remove_stale(parent)
        mode = _mode_of_replaceable(path, overwrite)
        # In a directory of its own, which is locked, so that the new one itself can be.
        outer, lock = _new_outer(parent)
        new, old = (os.path.join(outer, kind) for kind in ("new", "old"))
        try:
            try:
                os.mkdir(new)
                yield new
                if mode is not None:
                    os.chmod(new, mode)
                _sync_tree(new)
                if overwrite:
                    os.mkdir(old)
                    with suppress(FileNotFoundError):
                        _retrying(lambda: os.rename(path, os.path.join(old, name)))
                _retrying(lambda: _rename_directory(new, path))
            finally:
                _release(lock, outer)
        finally:
            _discard(outer)
        _sync_directory(parent)


@contextmanager
def locked(directory: str) -> Iterator[None]:
    """Keep others from the block until this one leaves it; they are waited for in turn.

    It is a lock among those who ask for it: anybody can write into the directory all the same. On
    file systems without locks it does nothing.

    Parameters
    ----------
    directory : str
        The directory.

    Raises
    ------
    OutputError
        If the directory cannot be opened, or another process has it for over a minute.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            lock = _acquire(directory)
            break
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                where = f", or has left {_LOCK_NAME!r} there" if _IS_WINDOWS else ""
                raise OutputError(
                    f"another process has been writing into {directory!r} for over "
                    f"{_LOCK_SECONDS:.0f} seconds{where}: try again when it is done"
                ) from error
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise OutputError(f"cannot lock {directory!r}: {_reason(error)}") from error
    try:
        yield
    finally:
        _release(lock, directory)


def _open_object(url: str) -> Any:
    from .remote import objects, store

    opened = _objects.get()
    source = None if opened is None else opened.get(url)
    if source is None:
        source = store.open_object(url, _may_download.get())
        if opened is not None:
            opened[url] = source
    return objects.opened(source, is_shared=opened is not None)


def _flag(name: str) -> int:
    """A flag of ``os.open``, 0 on a system without it."""
    return getattr(os, name, 0)


def _check_regular(path: str, status: os.stat_result) -> None:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        found = kinds.get(kind, "a device")
        raise ArtifactError(f"cannot read {path!r}: it is {found}, expected a regular file")


def _is_junction(status: os.stat_result) -> bool:
    # os.path.isjunction is of Python 3.12.
    tag = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    return tag is not None and getattr(status, "st_reparse_tag", 0) == tag


def _reason(error: OSError | ValueError) -> str:
    # A ValueError is a path with a byte 0 in it.
    return getattr(error, "strerror", None) or str(error)


def _cannot_read(path: str, error: OSError | ValueError) -> ArtifactError:
    return ArtifactError(f"cannot read {path!r}: {_reason(error)}")


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """Turn what the system says into an error that names the file to write."""
    refuse_url(path)
    if "\0" in path:
        raise OutputError(f"cannot write {path!r}: there is a byte 0 in its name")
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename or "")  # the linker that is missing, for example
        what = "" if named in ("", path) or _SUFFIX in named else f": {named!r}"
        raise OutputError(f"cannot write {path!r}: {_reason(error)}{what}") from error


def _retrying(action: Callable[[], None]) -> None:
    """Rename, and on Windows wait for those who have the file open, a virus scanner for example."""
    deadline = time.monotonic() + (_OPEN_SECONDS if _IS_WINDOWS else 0)
    while True:
        try:
            return action()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _new_file(directory: str) -> tuple[str, int]:
    """Make a temporary file, locked as long as its descriptor is open."""
    while True:
        path = _temporary_path(directory)
        # Not by tempfile, so that the file gets the permissions that the user's umask asks for.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _flag("O_BINARY"), 0o666)
        if _hold(descriptor, path):
            return path, descriptor
        os.close(descriptor)


def _new_outer(parent: str) -> tuple[str, int | None]:
    while True:
        path = _temporary_path(parent)
        os.mkdir(path, 0o700)
        # It can be gone, or be someone else's, who removes what is stale: it had no lock yet.
        with suppress(FileNotFoundError, BlockingIOError):
            lock = _acquire(path)
            if os.path.lexists(path):
                return path, lock
            _release(lock, path)


def _temporary_path(directory: str) -> str:
    return os.path.join(directory, f".{secrets.token_hex(8)}{_SUFFIX}")


def _hold(descriptor: int, path: str) -> bool:
    """Lock a new temporary; False if someone took it for stale before it was locked."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks, where nothing is taken for stale
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.path.lexists(path)


def _acquire(directory: str) -> int | None:
    """Lock a directory; None where the file system has no locks, BlockingIOError if it is locked.

    The lock ends with the process that has it, however that ends.
    """
    if fcntl is None:
        path = os.path.join(directory, _LOCK_NAME)
        # O_TEMPORARY: Windows removes the file when it is closed, also for a process that died.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _flag("O_TEMPORARY")
        try:
            return os.open(path, flags)
        except FileExistsError as error:
            raise BlockingIOError(*error.args) from error
        except PermissionError as error:
            if os.path.lexists(path):  # just being removed
                raise BlockingIOError(*error.args) from error
            raise
    descriptor = os.open(directory, os.O_RDONLY | _flag("O_DIRECTORY"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _release(lock: int | None, directory: str) -> None:
    if lock is not None:
        os.close(lock)
    if fcntl is None and not _flag("O_TEMPORARY"):
        with suppress(OSError):
            os.unlink(os.path.join(directory, _LOCK_NAME))


def _remove_stale(directory: str) -> None:
    """Remove the temporaries of those who were killed, and none of those who are at work."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in [entry for entry in entries if _TEMPORARY.fullmatch(entry.name)]:
            with suppress(OSError):
                # Another user could have made it so that something else goes with it.
                if fcntl is not None and entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    _remove_stale_directory(entry.path)
                else:
                    _remove_stale_file(entry.path)


def _remove_stale_directory(path: str) -> None:
    lock = _acquire(path)
    if lock is not None:  # without locks nobody can tell whether it is stale
        _release(lock, path)
        _discard(path)


def _remove_stale_file(path: str) -> None:
    if fcntl is None:
        os.unlink(path)  # Windows refuses this for a file that someone has open
        return
    descriptor = os.open(path, os.O_RDWR | _flag("O_NONBLOCK") | _flag("O_NOFOLLOW"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def _discard(outer: str) -> None:
    """Remove the temporary of a directory; what it was to replace goes back if it has to."""
    old = os.path.join(outer, "old")
    with suppress(OSError):
        for name in os.listdir(old) if os.path.isdir(old) else ():
            path = os.path.join(os.path.dirname(outer), name)
            if not os.path.lexists(path):
                # If this fails, what is nowhere else must not be removed.
                os.rename(os.path.join(old, name), path)
        shutil.rmtree(outer, ignore_errors=True)


def _mode_of_replaceable(path: str, overwrite: bool) -> int | None:
    """The permissions of the directory that is to be replaced; None if there is no such one."""
    expected = "a directory that is new or empty"
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode) or _is_junction(status):
        raise OutputError(f"cannot write {path!r}: it is not a directory, expected {expected}")
    if not overwrite and os.listdir(path):
        raise OutputError(f"cannot write {path!r}: it is not empty, expected {expected}")
    return stat.S_IMODE(status.st_mode)


def _rename_directory(new: str, path: str) -> None:
    try:
        os.rename(new, path)
    except FileExistsError:
        os.rmdir(path)  # an empty one, which Windows doesn't replace; else an error
        os.rename(new, path)


@contextmanager
def _directories(path: str) -> Iterator[None]:
    """Make a directory and those above it; if the block raises, remove those that were made."""
    made = []
    above = path
    while above and not os.path.lexists(above):
        made.append(above)
        above = os.path.dirname(above)
    try:
        os.makedirs(path, exist_ok=True)
        yield
        for directory in made:
            _sync_directory(os.path.dirname(directory) or os.curdir)
    except BaseException:
        with suppress(OSError):
            for directory in made:
                os.rmdir(directory)
        raise


def _sync_tree(top: str) -> None:
    # Windows syncs files only that are open for writing.
    flags = (os.O_RDWR if _IS_WINDOWS else os.O_RDONLY) | _flag("O_BINARY")
    for directory, _, names in os.walk(top, topdown=False):
        for name in names:
            path = os.path.join(directory, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                descriptor = os.open(path, flags)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        _sync_directory(directory)


def _sync_directory(path: str) -> None:
    # So that it is the new one after a crash, too; it is one of the two in any case. Windows has no
    # such thing, nor have all file systems.
    if _IS_WINDOWS:
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
