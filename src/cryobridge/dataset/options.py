"""What can be asked of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cryobridge.errors import UsageError
from cryobridge.formats.aberrations import EVEN, ODD
from cryobridge.fourier.grid import PolarGrid
from cryobridge.jobs.shared_options import ImageSearchOptions, NormOptions
from cryobridge.jobs.stacks.options import ImageOptions, refuse_odd
from cryobridge.options import Opt, checked, made

if TYPE_CHECKING:
    from cryobridge.fourier.ctf import CTFOptions


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(NormOptions, ImageOptions, ImageSearchOptions):
    """Which particles a dataset has, and what it makes of their images.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.

    Examples
    --------
    >>> DatasetOptions(half_set=1, box_px=64).sign
    'bright'
    """

    rows: Annotated[
        Path | Iterable[int] | None,
        Opt("These rows, in this order: numbers from 0, one truth value a particle, or a .pkl, .npy or .txt file."),
    ] = None
    where: Annotated[str | None, Opt("Only rows that fulfil this, such as 'rlnDefocusU > 12000', as in select.")] = None
    half_set: Annotated[int | None, Opt("Only particles of this half set.", low=1, high=2)] = None
    sign: Annotated[
        Literal["bright", "as_stored"],
        Opt("bright multiplies images by -1 whose particles a cryoSPARC file says are dark; as_stored none."),
    ] = "bright"
    box_px: Annotated[
        int | None, Opt("Edge of the images, an even number: they are cropped in Fourier space.", low=2)
    ] = None
    polar: Annotated[
        Any, Opt("A `PolarGrid`: items have the transform on it too, normalised as in Fourier stacks.")
    ] = None
    ctf: Annotated[Literal["values", "image"], Opt("image adds the CTF as an image, which `ctf_images` computes.")] = (
        "values"
    )
    ctf_options: Annotated[
        Any, Opt("Of that image, by their names in `CTFOptions`: {'layout': 'full', 'centred': True}.")
    ] = None
    transform: Annotated[Any, Opt("A function that is given each item; what it returns is the item.")] = None
    device: Annotated[
        str, Opt("Where polar transforms and CTF images are made, and all tensors then are: cpu, cuda, cuda:1 or mps.")
    ] = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows is not None and not isinstance(self.rows, Path | Iterable):
            hint = "Give a list of them, such as [5]."
            raise UsageError(f"row numbers are needed, not {self.rows!r:.60}", option="rows", hint=hint)
        if self.where is not None:
            from cryobridge.jobs.selection.where_text import parse_where

            parse_where(self.where)  # before a large file is read for it
        if self.box_px is not None:
            refuse_odd(self.box_px)
        if self.polar is not None and not isinstance(self.polar, PolarGrid):
            raise UsageError(
                f"a grid is needed, not {self.polar!r:.60}",
                option="polar",
                hint="Give a PolarGrid, such as PolarGrid.for_box(128).",
            )
        if self.transform is not None and not callable(self.transform):
            raise UsageError(f"a function is needed, not {self.transform!r:.60}", option="transform")
        if self.ctf_options is not None and self.ctf != "image":
            raise UsageError("it is for CTF images", option="ctf_options", hint="Add ctf='image', or leave it out.")

    def aberrations_of_ctf(self) -> tuple[str, ...]:
        """Return the names of the aberrations that the CTF images of items have."""
        asked = self.of_ctf().aberrations if self.ctf == "image" else "none"
        return {"none": (), "even": EVEN, "all": (*EVEN, *ODD)}[asked]

    def of_ctf(self) -> CTFOptions:
        """Return what is asked of the CTF images.

        Raises
        ------
        UsageError
            If there is no such option, or a value is wrong.
        """
        from cryobridge.fourier.ctf import CTFOptions

        given: Mapping[str, Any] = checked(self.ctf_options or {}, dict, "ctf_options")
        return made(CTFOptions, {"device": self.device, **given})
