"""Which folders an import may read: those below the operator's import roots, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from server.errors import Unprocessable


def below_a_root(path: str, roots: Sequence[Path]) -> Path:
    """The real path of a folder or archive, if it lies below an import root.

    Args:
        path: absolute, or relative to a root. Links are followed before it is looked at, so none
            leads out.
        roots: the operator's.

    Raises:
        Unprocessable: outside of all roots, not there, or neither folder nor file (a pipe would
            never end). The same sentence for all, so that nobody learns what else is on the
            server's disk.
    """
    if not roots:
        raise Unprocessable(
            "this server reads no folders: set MIAOD_IMPORT_ROOTS, or upload an archive",
            code="no_import_roots",
        )
    for root in roots:
        real_root = root.resolve()
        try:
            real = (real_root / path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if real.is_relative_to(real_root) and (real.is_dir() or real.is_file()):
            return real
    raise Unprocessable(
        f"{path!r} is no folder or archive below one of the import roots "
        f"({', '.join(map(str, roots))})",
        code="outside_import_roots",
    )
