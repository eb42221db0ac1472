"""Files are written whole: under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from roundoff.errors import ArgumentError
from roundoff.locks import SETTINGS

if TYPE_CHECKING:
    import pandas as pd


def make_folder(folder: Path) -> Path:
    """The folder, made if need be.  Raises: ArgumentError where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder


def unwritable(folder: Path, error: OSError) -> ArgumentError:
    """One sentence for a folder that cannot be written."""
    why = (error.strerror or type(error).__name__).lower()
    return ArgumentError(f"cannot write to the folder {str(folder)!r}: {why}; choose another one")


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file, or leave it as it was: never half of one."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise unwritable(path.parent, error) from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise unwritable(path.parent, error) from None
    finally:
        Path(temporary).unlink(missing_ok=True)


@SETTINGS  # pandas filters warnings meanwhile
def parquet(table: pd.DataFrame) -> bytes:
    """A table as the bytes of a Parquet file, without its index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


@SETTINGS
def read_parquet(path: Path) -> pd.DataFrame:
    """A table from a Parquet file."""
    import pandas as pd

    return pd.read_parquet(path)
