"""Options that several jobs share, each group a dataclass that theirs inherit from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cryobridge.errors import UsageError, option
from cryobridge.options import Opt, check, checked

if TYPE_CHECKING:
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.optics import KnownOptics
    from cryobridge.jobs.micrographs.optics_source import OpticsSource
    from cryobridge.model.convention import Convention

Orientation: TypeAlias = Literal["auto", "stored", "reliosparc"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all options dataclasses have in common: their values are held to their declaration.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.
    """

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class FlipOptions(Options):
    """The axis convention of coordinates: how cryoSPARC's fractions become pixels of RELION's micrographs."""

    flip_x: Annotated[
        bool, Opt("Set by hand: count x from the right edge, not from the left.", panel="Coordinates")
    ] = False
    flip_y: Annotated[
        bool,
        Opt("Set by hand: count y from the same edge as cryoSPARC, not from the opposite one.", panel="Coordinates"),
    ] = False
    swap_xy: Annotated[bool, Opt("Set by hand: exchange x and y, after the flips.", panel="Coordinates")] = False

    @property
    def convention(self) -> Convention:
        """The axis convention that is taken."""
        from cryobridge.model.convention import Convention

        return Convention(self.flip_x, not self.flip_y, self.swap_xy)

    @property
    def has_flips(self) -> bool:
        """Whether one is asked for."""
        return self.flip_x or self.flip_y or self.swap_xy


@dataclass(frozen=True, kw_only=True)
class OrientationOptions(FlipOptions):
    """Which way RELION's micrographs lie: found out, or set by hand (`cryobridge.jobs.micrographs.placement.place`).

    Raises
    ------
    UsageError
        If the orientation and the flips say different things.
    """

    orientation: Annotated[
        Orientation,
        Opt(
            "auto compares RELION's micrographs with cryoSPARC's; stored keeps y; reliosparc mirrors y.",
            panel="Coordinates",
        ),
    ] = "auto"
    force: Annotated[
        bool,
        Opt(
            "Write an orientation that is set by hand even if RELION's micrographs contradict it.", panel="Coordinates"
        ),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.has_flips and self.orientation != "auto" and self.by_hand != super().convention:
            raise UsageError(
                f"{option('orientation', self.orientation)} and {' and '.join(map(option, self._flips))} say different "
                "things",
                hint="Give one of them.",
            )

    @property
    def by_hand(self) -> Convention | None:
        """The axis convention that is set by hand; None where it is to be found out."""
        from cryobridge.model.convention import Convention

        if self.orientation != "auto":
            return Convention(mirror_y=self.orientation == "reliosparc")
        return super().convention if self.has_flips else None

    @property
    def given_by_hand(self) -> tuple[str, ...]:
        """The options that set it by hand."""
        return self._flips if self.orientation == "auto" else ("orientation", *self._flips)

    @property
    def _flips(self) -> tuple[str, ...]:
        return tuple(name for name in ("flip_x", "flip_y", "swap_xy") if getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(OrientationOptions):
    """How particles of two files are found to be the same by micrograph and position."""

    within_A: Annotated[
        float | None,
        Opt(
            "Largest distance between the positions of one particle in the two files; a tenth of the box unless given.",
            flags=("--within",),
            metavar="Å",
            panel="Matching",
            low=1e-3,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class MatchOptions(PlaceOptions):
    """How particles of two files are found to be the same (`cryobridge.jobs.identity.match.match_rows`)."""

    sources: Annotated[
        Path | None,
        Opt(
            "Table of the original images of a downsampled set (_sources.csv), if it is not found beside it.",
            metavar="FILE.csv",
            panel="Matching",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class DedupeOptions(Options):
    """Which particles count as picked more than once (`cryobridge.jobs.identity.dedupe.deduped`)."""

    dedupe_A: Annotated[
        float | None,
        Opt(
            "Of particles closer together than this, keep only the best.",
            metavar="Å",
            panel="Which rows",
            low=1e-3,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class AncestorOptions(Options):
    """What particles lack, and jobs that they come from have."""

    from_ancestors: Annotated[
        bool,
        Opt("Take columns that a .cs file lacks, such as location, from earlier jobs of the project.", panel="Input"),
    ] = False

    def refuse_ancestors_of_set(self) -> None:
        """Refuse to fetch columns for a set in memory.

        Raises
        ------
        UsageError
            If that is asked for.
        """
        if self.from_ancestors:
            raise UsageError(
                "it is for files, not for a set in memory",
                option="from_ancestors",
                hint="Read the set with it: cryobridge.read(FILE, from_ancestors=True).",
            )


@dataclass(frozen=True, kw_only=True)
class ImageSearchOptions(Options):
    """Where image files are looked for (see `cryobridge.formats.image_search.ImageSearch`)."""

    datadir: Annotated[
        tuple[Path, ...] | None,
        Opt("Folder to look for stacks and micrographs in. Repeatable.", metavar="DIR", panel="Image files"),
    ] = None
    folder_mrc: Annotated[
        tuple[Path, ...] | None,
        Opt("The same as datadir, by CryoLike's name. Repeatable.", metavar="DIR", panel="Image files"),
    ] = None
    strip_prefix: Annotated[
        str | None,
        Opt(
            "Remove this beginning from the names of image files before looking for them.",
            metavar="PREFIX",
            panel="Image files",
        ),
    ] = None

    def image_search(self, metadata: Path) -> ImageSearch:
        """Return where the image files of a metadata file are looked for."""
        from cryobridge.formats.image_search import ImageSearch, require_folders

        require_folders(self.folder_mrc or (), "folder_mrc")
        return ImageSearch(metadata, (*(self.datadir or ()), *(self.folder_mrc or ())), self.strip_prefix)

    @property
    def says_where(self) -> bool:
        """Whether image files are to be looked for elsewhere than their names say."""
        return bool(self.datadir or self.folder_mrc or self.strip_prefix)


@dataclass(frozen=True, kw_only=True)
class InvertOptions(Options):
    """Whether pixels change their sign."""

    invert: Annotated[bool, Opt("Invert the contrast (pixels × -1): dark particles become bright.", panel="Pixels")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class NormOptions(Options):
    """The norm of the background of images.

    Raises
    ------
    UsageError
        If the radius is none, or there is nothing that a plane would be subtracted for.

    Examples
    --------
    >>> NormOptions(normalise="auto").background_radius_px(100)
    37
    """

    normalise: Annotated[
        str | int | None,
        Opt(
            "Normalise as RELION does: outside this radius to mean 0, standard deviation 1; auto: 3/8 of the box.",
            metavar="PX|auto",
            panel="Pixels",
            complete=("auto",),
        ),
    ] = None
    ramp: Annotated[
        bool,
        Opt(
            "When normalising, subtract a fitted plane (ramp) or only the mean of the background.",
            flags=("--ramp/--no-ramp",),
            panel="Pixels",
            default="ramp",
        ),
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalise is None and not self.ramp:
            text = f"{option('ramp', False)} would do nothing here: it is for {option('normalise')}"
            raise UsageError(text, hint=f"Add {option('normalise', 'auto')}, or leave it out.")
        if self.normalise in {None, "auto"}:
            return
        radius: object = self.normalise
        if isinstance(radius, str) and radius.isdecimal() and len(radius) < 10:
            radius = int(radius)
        if isinstance(radius, str):
            raise UsageError(
                f"{radius!r:.60} is no radius",
                option="normalise",
                hint="Give whole pixels of the images that are written, or auto for RELION's 3/8 of the box.",
            )
        object.__setattr__(self, "normalise", checked(radius, int, "normalise", Opt(low=1)))

    def background_radius_px(self, box_px: int) -> int | None:
        """Return the radius outside of which images of a box are normalised; None where they are not.

        Raises
        ------
        UsageError
            If the circle does not fit into the box, which RELION refuses too.
        """
        from cryobridge.model.background import default_radius_px

        if self.normalise is None or self.normalise == "auto":
            return None if self.normalise is None else default_radius_px(box_px)
        radius_px = int(self.normalise)
        if 2 * radius_px > box_px:
            raise UsageError(
                f"a circle with a radius of {radius_px} px does not fit into images of {box_px} px",
                option="normalise",
                hint=f"Give at most {box_px // 2}, in pixels of the images that are written; RELION takes "
                f"{default_radius_px(box_px)} unless asked otherwise.",
            )
        return radius_px


@dataclass(frozen=True, kw_only=True)
class PixelOptions(NormOptions, InvertOptions):
    """What becomes of the pixels of images that are written."""

    @property
    def changes_pixels(self) -> bool:
        """Whether pixels become others."""
        return self.invert or self.normalise is not None


@dataclass(frozen=True, kw_only=True)
class _SizeDefaults(Options):
    """Sizes for files that lack them."""

    box_px: Annotated[
        int | None, Opt("Box size in pixels, if no file gives it.", metavar="N", panel="Optics", low=1)
    ] = None
    pixel_size_A: Annotated[
        float | None, Opt("Pixel size in Å, if no file gives it.", metavar="Å", panel="Optics", low=1e-3)
    ] = None


@dataclass(frozen=True, kw_only=True)
class MicroscopeDefaults(Options):
    """What is known of the microscope, for files that lack it."""

    voltage_kV: Annotated[
        float | None, Opt("Acceleration voltage in kV, if no file gives it.", metavar="kV", panel="Optics", low=1)
    ] = None
    spherical_aberration_mm: Annotated[
        float | None,
        Opt("Spherical aberration in mm, if no file gives it.", flags=("--cs",), metavar="mm", panel="Optics", low=0),
    ] = None
    amplitude_contrast: Annotated[
        float | None,
        Opt("Amplitude contrast, from 0 to 1, if no file gives it.", metavar="X", panel="Optics", low=0, high=1),
    ] = None

    @property
    def known_optics(self) -> KnownOptics:
        """The values that are given."""
        from cryobridge.formats.optics import KnownOptics

        return KnownOptics(
            voltage_kV=self.voltage_kV,
            spherical_aberration_mm=self.spherical_aberration_mm,
            amplitude_contrast=self.amplitude_contrast,
        )


@dataclass(frozen=True, kw_only=True)
class OpticsDefaults(MicroscopeDefaults, _SizeDefaults):
    """Optics values for files that lack them."""

    @property
    def known_optics(self) -> KnownOptics:
        """The values that are given."""
        return replace(super().known_optics, pixel_size_A=self.pixel_size_A, box_px=self.box_px)


@dataclass(frozen=True, kw_only=True)
class OpticsGroupOptions(Options):
    """Where optics groups come from (`cryobridge.jobs.micrographs.optics_groups.optics_groups`).

    Raises
    ------
    UsageError
        If it is nowhere, or a number of groups is given for others than those of beam shifts.

    Examples
    --------
    >>> OpticsGroupOptions(optics_from="afis:EPU/Images-Disc1", optics_groups=49).optics_source.kind
    'afis'
    """

    optics_from: Annotated[
        str | Path | None,
        Opt(
            "Make optics groups by names (epu, serialem, a pattern), by beam shifts (afis), or as FILE has them.",
            metavar="epu|serialem|afis|regex:RE|FILE",
            panel="Optics",
            default="exposure groups",
            complete=("epu", "serialem", "afis", "regex:"),
        ),
    ] = None
    optics_groups: Annotated[
        int | None,
        Opt(
            "Number of groups of beam shifts.",
            metavar="N",
            panel="Optics",
            default="by the gaps between them",
            low=1,
        ),
    ] = None

    def __post_init__(self) -> None:
        if isinstance(self.optics_from, Path):
            object.__setattr__(self, "optics_from", str(self.optics_from))
        super().__post_init__()
        source = self.optics_source
        if self.optics_groups is not None and (source is None or source.kind != "afis"):
            raise UsageError(
                f"{option('optics_groups')} would do nothing here: it is for {option('optics_from', 'afis')}",
                hint=f"Add {option('optics_from', 'afis')}, or leave it out.",
            )

    @property
    def optics_source(self) -> OpticsSource | None:
        """Where they come from; None for the groups that the input has."""
        from cryobridge.jobs.micrographs.optics_source import optics_source

        return None if self.optics_from is None else optics_source(str(self.optics_from))

    @property
    def optics_files(self) -> tuple[Path, ...]:
        """The file that has them, which is an input too."""
        source = self.optics_source
        return () if source is None or source.kind != "file" else (Path(source.value),)
