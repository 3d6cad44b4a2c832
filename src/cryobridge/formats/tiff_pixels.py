"""Pixels of TIFF files, by Pillow: gain references and frames of movies."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import open_input, read_error, readable_size, unpacks_to_too_much
from cryobridge.formats.tiff_header import read_tiff_header
from cryobridge.report import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

# What Pillow may raise on damaged files, besides errors of the system.
_LIBRARY_ERRORS = (
    *(struct.error, EOFError, MemoryError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(SyntaxError, RuntimeError, ArithmeticError),
)
_HINT = "Convert it to MRC with the program that wrote it, such as IMOD's tif2mrc, which keeps the order of rows."


def read_tiff_pages(path: str | os.PathLike[str], pages: Sequence[int] = (0,)) -> NDArray[np.float32]:
    """Read pages of a TIFF file, with the rows in the order in which they are stored.

    Parameters
    ----------
    path
        The file.
    pages
        Which ones, from 0.

    Returns
    -------
    numpy.ndarray
        (n_pages, ny, nx) float32.

    Raises
    ------
    FormatError
        If the file can't be read, or its pixels are of a kind that is not read, such as colours or packed bits.
    """
    from PIL import Image

    path = Path(path)
    header = read_tiff_header(path)
    packed, n_bytes = readable_size(path), 4 * len(pages) * header.ny * header.nx
    if unpacks_to_too_much(packed, n_bytes):
        text = f"{counted(packed, 'byte')} would unpack to {n_bytes:,}, as no image does"
        raise FormatError(text, path=path, hint=_HINT)
    found = np.empty((len(pages), header.ny, header.nx), np.float32)
    try:
        # Pillow warns of detectors, which are larger than photographs, and of odd tags; pixels that it can't read are
        # errors.
        with warnings.catch_warnings(), open_input(path) as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=["TIFF"]) as image:
                for place, page in enumerate(pages):
                    image.seek(page)
                    if image.size != (header.nx, header.ny):
                        text = "{} × {} pixels in a page, {} × {} in the first".format(*image.size, *found.shape[:0:-1])
                        raise FormatError(text, path=path, hint=_HINT)
                    pixels = np.asarray(image)
                    if pixels.shape != found.shape[1:] or pixels.dtype.kind not in "uif":
                        raise FormatError(f"pixels of mode {image.mode} are not read", path=path, hint=_HINT)
                    found[place] = pixels
    except (Image.DecompressionBombError, *_LIBRARY_ERRORS) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"pixels can't be read ({error})", path=path, hint=_HINT) from error
    except OSError as error:
        if error.errno is not None:
            raise read_error(path, error) from error
        raise FormatError(f"pixels can't be read ({error})", path=path, hint=_HINT) from error
    return found
