"""Durable files: written whole or not at all, even when the machine stops half-way."""

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StorageFull

_RENAME_EXCHANGE = 2
_CANNOT_WRITE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EFBIG,
    errno.EISDIR,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk met while writing ``path`` into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            raise StorageFull(
                f"cannot write {path}: {os.strerror(error.errno or 0)}; free some space or choose "
                "another folder, then try again (nothing saved before is lost)"
            ) from error
        raise


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old file or the new one.

    ``mode`` is the new file's, less the process's umask. Raises StorageFull when the disk is full
    or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing_to(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with os.fdopen(os.open(partial, flags, mode), "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def replace_folder(prepared: Path, target: Path) -> None:
    """Move the folder ``prepared`` (same file system) to ``target``, replacing what is there.

    A reader sees the old folder or the new one, whole. On file systems that cannot exchange two
    folders there is a moment without either in between.
    """
    with writing_to(target):
        for file in prepared.iterdir():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(prepared)
        if target.exists() and _exchange(prepared, target):
            sync_folder(target.parent)
            shutil.rmtree(prepared)
            return
        if target.exists():
            shutil.rmtree(target)
        prepared.rename(target)
        sync_folder(target.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step (Linux's renameat2); False where that cannot be done."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(a.absolute()), os.fsencode(b.absolute())
    return rename is not None and rename(-1, names[0], -1, names[1], _RENAME_EXCHANGE) == 0


def sync_folder(folder: Path) -> None:
    """Make renames within ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(content: bytes) -> str:
    """Hexadecimal SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()
