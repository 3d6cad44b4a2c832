"""The micrograph set: what files of exposures become when they are read, whichever program wrote them.

Frozen dataclasses of parallel arrays, one row a micrograph, as in `cryobridge.model.particles`; units are in the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.model.particles import CTF, ExtraColumns, Floats, Labels, Optics, take_rows
from cryobridge.report import counted

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.model.fields import Program
    from cryobridge.report import Message


@dataclass(frozen=True)
class CtfFit:
    """How well the CTF of each micrograph fits; arrays are (n,), None where the file lacks it.

    Parameters
    ----------
    resolution_A
        To which resolution the Thon rings fit.
    score
        Correlation of the fit with the power spectrum.
    ice_thickness
        cryoSPARC's relative thickness of the ice, about 1 for vitreous ice.
    """

    resolution_A: Floats | None = None
    score: Floats | None = None
    ice_thickness: Floats | None = None


@dataclass(frozen=True)
class GainReference:
    """The gain reference of each movie, and how it is turned to lie on the movie.

    Parameters
    ----------
    name
        File as the metadata name it.
    flip_x, flip_y
        (n,) bool; None where the file does not say.
    quarter_turns
        (n,) int64, cryoSPARC's rotate_num; None where the file does not say.
    """

    name: Labels
    flip_x: NDArray[np.bool_] | None = None
    flip_y: NDArray[np.bool_] | None = None
    quarter_turns: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Movies:
    """The movie of each micrograph; a part that the file lacks is None.

    Parameters
    ----------
    name
        File as the metadata name it.
    shape_px
        (n, 2) ny, nx of a frame.
    n_frames
        (n,) frames of the file.
    pixel_size_A
        (n,) Å a pixel of a frame.
    is_gain_corrected
        (n,) bool.
    gain
        The gain references.
    defects
        Lists of the detector's defects.
    dose_e_A2
        (n,) dose of the whole movie, e/Å².
    """

    name: Labels
    shape_px: NDArray[np.int64] | None = None
    n_frames: NDArray[np.int64] | None = None
    pixel_size_A: Floats | None = None
    is_gain_corrected: NDArray[np.bool_] | None = None
    gain: GainReference | None = None
    defects: Labels | None = None
    dose_e_A2: Floats | None = None

    @property
    def dose_per_frame_e_A2(self) -> Floats | None:
        """(n,) dose of a frame, e/Å²; NaN where it is not known."""
        if self.dose_e_A2 is None or self.n_frames is None:
            return None
        dose: Floats = np.where(self.n_frames > 0, self.dose_e_A2 / np.maximum(self.n_frames, 1), np.nan)
        return dose


@dataclass(frozen=True)
class Trajectories:
    """Where the motion of each movie is written, in a file of its own.

    Parameters
    ----------
    path
        File as the metadata name it.
    index
        (n,) place in the file, counted from 0.
    pixel_size_A
        (n,) Å a pixel, in which the file may count; None where the metadata lack it.
    first_frame, end_frame
        (n,) the frames that were aligned, counted from 0: the first, and the one after the last.
    zero_frame
        (n,) the frame that does not move, counted from 0.
    """

    path: Labels
    index: NDArray[np.int64] | None = None
    pixel_size_A: Floats | None = None
    first_frame: NDArray[np.int64] | None = None
    end_frame: NDArray[np.int64] | None = None
    zero_frame: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Motion:
    """The motion of each movie; a part that the file lacks is None.

    Parameters
    ----------
    rigid, spline
        cryoSPARC's trajectories of the whole frame, and the local ones.
    metadata
        RELION's STAR file of each micrograph's motion.
    total_A, early_A, late_A
        (n,) length of the path of all frames, of the first ones and of the others, as RELION reports them.
    """

    rigid: Trajectories | None = None
    spline: Trajectories | None = None
    metadata: Labels | None = None
    total_A: Floats | None = None
    early_A: Floats | None = None
    late_A: Floats | None = None


@dataclass(frozen=True)
class MicrographSet:
    """Micrographs, or movies that have none yet, and what is known of them; a part that the file lacks is None.

    Parameters
    ----------
    n_rows
        Number of micrographs.
    source
        The metadata file.
    program
        Whose file it is.
    pixel_size_A
        (n,) Å a pixel of the micrograph; NaN where the file does not say.
    name
        Micrograph file as the metadata name it, with cryoSPARC's leading ``>`` kept; None for movies alone.
    uid
        (n,) uint64, the identity of a cryoSPARC row.
    shape_px
        (n, 2) ny, nx.
    name_no_dw
        The same micrograph without dose weighting.
    optics, optics_index
        The optics groups, and (n,) the row of ``optics`` for each micrograph. Their ``pixel_size_A`` is that of the
        micrographs.
    ctf
        Contrast transfer of each micrograph.
    fit
        How well that fits.
    movies, motion
        What the micrographs were made of.
    columns
        Further columns by name, (n, …) arrays or `Labels`.
    extra
        Columns of the file that the model does not know.
    messages
        What was assumed, repaired or left out by the reader.

    Examples
    --------
    >>> from pathlib import Path
    >>> MicrographSet(2, Path("mics.star"), "relion", np.array([0.8, 0.8]), Labels.of(["a.mrc", "b.mrc"])).names
    ('a.mrc', 'b.mrc')
    """

    n_rows: int
    source: Path
    program: Program
    pixel_size_A: Floats
    name: Labels | None = None
    uid: NDArray[np.uint64] | None = None
    shape_px: NDArray[np.int64] | None = None
    name_no_dw: Labels | None = None
    optics: Optics | None = None
    optics_index: NDArray[np.int32] | None = None
    ctf: CTF | None = None
    fit: CtfFit | None = None
    movies: Movies | None = None
    motion: Motion | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    extra: ExtraColumns | None = None
    messages: tuple[Message, ...] = ()

    def __len__(self) -> int:
        return self.n_rows

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each micrograph, or of its movie where there is no micrograph yet."""
        labels = self.name if self.name is not None else None if self.movies is None else self.movies.name
        return () if labels is None else tuple(labels.to_numpy().tolist())

    def get(self, name: str) -> Any:
        """Return a part by its name, such as ``"movies.gain.name"``; None where one on the way is absent."""
        found: Any = self
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else getattr(found, part)
            if found is None:
                return None
        return found

    def take(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> MicrographSet:
        """Return the chosen micrographs, by row numbers from 0 or (n,) bool; the optics are kept whole."""
        chosen = np.asarray(rows)
        numbers = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        kept = {"n_rows", "source", "program", "optics", "messages"}
        parts: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        taken = {
            name: part if part is None or name in kept else take_rows(part, numbers) for name, part in parts.items()
        }
        return MicrographSet(**{**taken, "n_rows": len(numbers)})

    def distinct(self) -> MicrographSet:
        """Return the first row of each name."""
        labels = Labels.of(self.names)
        first = np.unique(labels.codes, return_index=True)[1]
        return self if len(first) == self.n_rows else self.take(first)

    def per_micrograph(self, name: str) -> Floats:
        """Return an optics value such as ``"voltage_kV"`` of each micrograph, (n,); NaN where it is not known."""
        values = None if self.optics is None else getattr(self.optics, name)
        if values is None or self.optics_index is None:
            return np.full(self.n_rows, np.nan)
        of_rows: Floats = values[self.optics_index].astype(np.float64)
        return of_rows

    def __repr__(self) -> str:
        hidden = {"n_rows", "source", "program", "messages", "optics_index", "extra", "columns"}
        known = [item.name for item in fields(self) if item.name not in hidden and getattr(self, item.name) is not None]
        parts = ", ".join([*known, *self.columns])
        rows = counted(self.n_rows, "micrograph")
        return f"MicrographSet({rows} of {self.source.name!r}{': ' if parts else ''}{parts})"
