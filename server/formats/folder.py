"""Folders of an import: which files are there, without following anything out of them."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Opens a folder only to go through it, which needs no right to list it.
_PASSAGE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What says that the file is not as it was when the folder was listed; other errors are the disk's.
_OF_THE_FILE = {
    errno.ENOENT: "it is not there any more",
    errno.ENOTDIR: "it is not there any more",
    errno.ELOOP: "it has become a link; copy the file",
    errno.EACCES: "the server may not read it; change its permissions",
    errno.EPERM: "the server may not read it; change its permissions",
    errno.ENXIO: "it is no regular file",
}


class FileRefused(ValueError):
    """A file that cannot be read; the message says why."""


@dataclass
class Listing:
    """What a folder holds.

    Attributes:
        files: relative path with slashes -> the file (links followed), in the order of the paths.
        refusals: what was left out, with the reason.
    """

    files: dict[str, Path]
    refusals: list[tuple[str, str]]


def list_files(root: Path) -> Listing:
    """List the regular files below a folder.

    Hidden files and folders are passed over (`.git`, `.DS_Store`, `__MACOSX`, `Thumbs.db`). A link
    counts if it leads to a file of the same folder; others are refused, so that nobody reads a
    server's files by planting a link in a folder of pictures. So is what the server may not read.

    Raises:
        OSError: the folder itself cannot be read.
    """
    root = real_root = root.resolve()
    found: dict[str, Path] = {}
    refusals: list[tuple[str, str]] = []

    def leave_out(error: OSError) -> None:  # `os.walk` would pass over it without a word
        if error.filename == os.fspath(root):
            raise error
        name = _relative(root, error.filename, "")
        refusals.append((name, f"the folder cannot be read ({error.strerror})"))

    for folder, subfolders, names in os.walk(root, onerror=leave_out):
        for name in list(subfolders):
            if _is_hidden(name):
                subfolders.remove(name)
            elif os.path.islink(os.path.join(folder, name)):
                subfolders.remove(name)
                refusals.append(
                    (
                        _relative(root, folder, name),
                        "it is a link to a folder; copy it, or import it",
                    )
                )
        for name in names:
            if _is_hidden(name):
                continue
            relative, path = _relative(root, folder, name), Path(folder, name)
            reason = _problem(path, relative, real_root)
            if reason is None:
                found[relative] = path.resolve() if path.is_symlink() else path
            else:
                refusals.append((relative.encode("utf-8", "backslashreplace").decode(), reason))
    return Listing(dict(sorted(found.items())), sorted(refusals))


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, on a path that holds no link.

    What was looked at may have been exchanged since then, by somebody who writes to the folder but
    may not read the server's other files: a link on the way is not followed, and a pipe or a device
    is not waited for.

    Args:
        path: absolute, with links resolved, as in `Listing.files`.

    Raises:
        FileRefused: it is gone, or something else than a file that may be read.
    """
    *folders, name = path.parts[1:]
    try:
        folder = os.open(path.anchor, _PASSAGE)
        try:
            for part in folders:
                inner = os.open(part, _PASSAGE, dir_fd=folder)
                os.close(folder)
                folder = inner
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
        raise FileRefused(_OF_THE_FILE[error.errno]) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileRefused("it is no regular file")
    return os.fdopen(descriptor, "rb")


def _relative(root: Path, folder: str, name: str) -> str:
    return Path(folder, name).relative_to(root).as_posix()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _problem(path: Path, relative: str, real_root: Path) -> str | None:
    if any("\udc80" <= character <= "\udcff" for character in relative):
        return "its name is not valid UTF-8; rename it"
    if path.is_symlink() and not path.resolve().is_relative_to(real_root):
        return "it is a link out of the folder; copy the file"
    if not path.is_file():
        return "it is no regular file, or a broken link"
    if not os.access(path, os.R_OK):
        return "the server may not read it; change its permissions"
    return None
