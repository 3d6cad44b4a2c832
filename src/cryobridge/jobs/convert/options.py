"""What can be asked of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cryobridge.errors import UsageError, option
from cryobridge.jobs.offers import class_lists
from cryobridge.jobs.shared_options import (
    AncestorOptions,
    ImageSearchOptions,
    MatchOptions,
    OpticsDefaults,
    OpticsGroupOptions,
    PixelOptions,
)
from cryobridge.options import Opt, declared

if TYPE_CHECKING:
    from cryobridge.formats.relion.particles_write import Version

Odd: TypeAlias = Literal["as-derived", "reversed", "drop"]
Target: TypeAlias = Literal["star", "cs", "pickles"]
Program: TypeAlias = Literal["cryosparc", "relion", "pickles"]
Part: TypeAlias = Literal["poses", "ctf", "classes", "half_sets", "latent", "aberrations"]
_ONTO = "Onto another file"
_PICKLES = (".pkl", ".pickle", ".p")
# RELION's releases, and the layout of STAR files that each writes.
LAYOUTS: dict[str, Version] = {"3.0": "3.0", "3.1": "3.1", "4": "3.1", "4.0": "3.1", "5": "5", "5.0": "5"}


def target_of(output: Path, asked: Target | None = None) -> Target:
    """Return what is to be written: what is asked for, else what the output's name says.

    Raises
    ------
    UsageError
        If the name does not show it, or belongs to something else than what is asked for.
    """
    by_name: dict[str, Target] = {".star": "star", ".cs": "cs"}
    named = by_name.get(output.suffix)
    target: Target | None = asked or named
    if target is None:
        raise UsageError(
            f"{option('output', output)}: its name does not say what to write",
            hint=f"End it in .star or .cs, or give {option('to', 'pickles')} for a folder of poses.pkl and ctf.pkl.",
        )
    if target != (named or "pickles"):
        raise UsageError(
            f"{option('output', output)} does not go with {option('to', target)}",
            hint="STAR files end in .star, cryoSPARC's in .cs; pickles go into a folder.",
        )
    if target == "pickles" and output.suffix in _PICKLES:
        folder = option("output", output.with_suffix(""))
        raise UsageError(
            f"{option('output', output)} is no name of a folder, which pickles go into as poses.pkl and ctf.pkl",
            hint=f"Give a folder: {folder}, or {option('output', '.')} for the one that you are in.",
        )
    return target


def moves_coordinates(program: Program, target: Target) -> bool:
    """Whether coordinates go from cryoSPARC's micrographs to RELION's, or back."""
    return (program, target) in {("cryosparc", "star"), ("relion", "cs")}


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(
    OpticsDefaults, OpticsGroupOptions, ImageSearchOptions, MatchOptions, PixelOptions, AncestorOptions
):
    """What is asked of a conversion; None for what is not.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.

    Examples
    --------
    >>> ConvertOptions(to="star", relion="5", classes=(0, 2), link_stacks="relion/stacks")
    """

    to: Annotated[
        Target | None,
        Opt(
            "What to write; pickles are for cryoDRGN and RECOVAR.",
            metavar="star|cs|pickles",
            panel="Output",
            default="by the name of OUTPUT",
        ),
    ] = None
    relion: Annotated[
        Literal["3.0", "3.1", "4", "4.0", "5", "5.0"] | None,
        Opt(
            "Version of RELION that the STAR file is for.",
            metavar="3.0|3.1|4|5",
            panel="Output",
            default="3.1, which 4 reads too",
        ),
    ] = None
    contrast: Annotated[
        Literal["bright", "dark"] | None,
        Opt("Contrast of the particles in the images, if no file gives it.", panel="Output", default="bright"),
    ] = None
    aberrations: Annotated[
        bool | None,
        Opt(
            "Write beam tilt, trefoil and higher aberrations, or leave them out.",
            flags=("--aberrations/--no-aberrations",),
            panel="Output",
            default="write them",
        ),
    ] = None
    odd_aberrations: Annotated[
        Odd | None,
        Opt(
            "Sign of beam tilt and trefoil: as derived, or reversed; or leave them out.",
            panel="Output",
            default="as-derived",
        ),
    ] = None
    strip_uid: Annotated[
        bool, Opt("Remove cryoSPARC's uid from the names of micrographs and links.", panel="Output")
    ] = False
    micrograph_path: Annotated[
        str | None, Opt("Folder to write before the names of micrographs.", metavar="DIR", panel="Output")
    ] = None
    verify: Annotated[bool, Opt("Read the output back and compare it with the input.", panel="Output")] = False
    verify_map: Annotated[
        int | None,
        Opt(
            "Make maps of N particles by the input and by the output, and compare.", metavar="N", panel="Output", low=1
        ),
    ] = None
    pose_from: Annotated[
        str | None,
        Opt("Take poses and classes from this alignment, such as alignments2D.", metavar="NAME", panel="Particles"),
    ] = None
    classes: Annotated[
        tuple[int, ...],
        Opt(
            "Keep these classes, numbered as in the input. Repeatable.",
            flags=("--class",),
            metavar="N,N",
            panel="Particles",
            complete=class_lists,
        ),
    ] = ()
    min_posterior: Annotated[
        float | None,
        Opt(
            "Keep particles whose class has at least this probability, from 0 to 1.",
            metavar="P",
            panel="Particles",
            low=0,
            high=1,
        ),
    ] = None
    link_stacks: Annotated[
        Path | None,
        Opt(
            "Make links to the stacks in this folder, with the names (.mrcs) that RELION needs.",
            metavar="DIR",
            panel="Image files",
        ),
    ] = None
    copy: Annotated[bool, Opt("Copy the stacks into that folder instead.", panel="Image files")] = False
    micrographs: Annotated[
        Path | None,
        Opt(
            "RELION's micrographs (.star) that coordinates are for; on the way back, cryoSPARC's exposures (.cs).",
            metavar="FILE",
            panel="Coordinates",
        ),
    ] = None
    on_unmatched: Annotated[
        Literal["error", "skip"],
        Opt("If that file lacks a micrograph: stop, or leave its particles out.", panel="Coordinates"),
    ] = "error"
    reextract: Annotated[
        bool,
        Opt(
            "Mirror poses and CTF as the coordinates are, to extract the particles again in RELION.",
            panel="Coordinates",
        ),
    ] = False
    recenter: Annotated[
        bool,
        Opt(
            "Move the whole pixels of shifts into the coordinates, to extract centred particles.",
            panel="New centres",
        ),
    ] = False
    center_A: Annotated[
        tuple[float, float, float] | None,
        Opt(
            "Make this position in the map, in Å from the map's centre, the centre of the particles.",
            metavar="X,Y,Z",
            panel="New centres",
        ),
    ] = None
    symmetry: Annotated[
        str | None,
        Opt(
            "Symmetry of the map: one row is written for each copy of that position.",
            metavar="C4|D2|T|O|I1",
            panel="New centres",
        ),
    ] = None
    micrograph_pixel_size_A: Annotated[
        float | None,
        Opt("Pixel size of the micrographs in Å, if no file gives it.", metavar="Å", panel="New centres", low=1e-3),
    ] = None
    micrograph_shape_px: Annotated[
        tuple[int, int] | None,
        Opt(
            "Height and width of RELION's micrographs in pixels.",
            flags=("--micrograph-shape",),
            metavar="NY,NX",
            panel="Coordinates",
            low=1,
        ),
    ] = None

    onto: Annotated[
        Path | None,
        Opt(
            "Write columns of INPUT onto the rows of this .star or .cs file, which keeps its others.",
            metavar="FILE",
            panel=_ONTO,
        ),
    ] = None
    take: Annotated[
        tuple[Part, ...] | None,
        Opt(
            "Columns to write onto them: poses, ctf, classes, half_sets, latent, aberrations. Repeatable.",
            metavar="PART,PART",
            panel=_ONTO,
            default="all but aberrations, of those that INPUT has",
        ),
    ] = None
    unmatched: Annotated[
        Literal["drop", "keep", "error"] | None,
        Opt("What to do with rows of that file that have no partner in INPUT.", panel=_ONTO, default="drop"),
    ] = None

    @property
    def has_aberrations(self) -> bool:
        """Whether aberrations go to another program."""
        return self.aberrations is not False

    @property
    def layout(self) -> Version:
        """The layout of a STAR file."""
        return LAYOUTS[self.relion or "3.1"]

    @property
    def is_recentred(self) -> bool:
        """Whether the particles get other centres."""
        return self.recenter or self.center_A is not None

    @property
    def extracts_again(self) -> bool:
        """Whether the output is for images that are still to be extracted."""
        return self.reextract or self.is_recentred

    @property
    def keeps_old_images(self) -> bool:
        """Whether the images that are named are only those before extraction, which RELION does not look at."""
        return self.extracts_again and self.link_stacks is None

    def refuse_idle(self, program: Program, target: Target) -> None:
        """Refuse options that would do nothing in this direction.

        Raises
        ------
        UsageError
            If there is one.
        """
        if self.onto is not None:
            self._refuse_idle_onto(program)
            return
        defaults = {item.name: item.default for item in fields(self)}
        to_file, of_both = target != "pickles", "for STAR and .cs output"
        moves = moves_coordinates(program, target)
        is_mapped = moves and self.micrographs is not None
        with_map = f"for micrographs of the other program ({option('micrographs', 'FILE')})"
        is_other = moves or (target == "pickles" and program != "pickles")
        for names, is_used, purpose in (
            (("take", "unmatched", "within_A", "sources"), False, f"for {option('onto', 'FILE')}"),
            (("relion",), target == "star", "for STAR output"),
            (("micrographs",), moves, "for going from cryoSPARC to RELION or back"),
            (("flip_x", "flip_y", "swap_xy", "reextract", "force", "orientation", "on_unmatched"), is_mapped, with_map),
            (("pose_from", "from_ancestors"), program == "cryosparc", "for cryoSPARC files"),
            (("contrast",), target == "cs", "for .cs output"),
            (("aberrations",), is_other, "for going to another program"),
            (("odd_aberrations",), moves, "for going from cryoSPARC to RELION or back"),
            (("link_stacks", "strip_uid", "recenter", "center_A"), to_file, of_both),
            (("symmetry",), self.center_A is not None, f"for {option('center_A', 'X,Y,Z')}"),
            (
                ("micrograph_pixel_size_A",),
                self.is_recentred,
                f"for {option('recenter', True)} and {option('center_A', 'X,Y,Z')}",
            ),
            (
                ("link_stacks", "copy", "invert", "normalise", "contrast"),
                not self.is_recentred,
                "for images that are there, and new centres need other ones",
            ),
            (
                ("verify_map",),
                not self.extracts_again,
                "for images that are there, and these are still to be extracted",
            ),
            (("micrograph_path",), to_file and not is_mapped, "for names that no other file gives"),
            (
                ("optics_from", "optics_groups"),
                to_file and not is_mapped,
                "for STAR and .cs output whose micrographs no other file gives",
            ),
            (("copy",), self.link_stacks is not None, f"for {option('link_stacks')}"),
            (("invert", "normalise"), self.copy, f"for copies ({option('link_stacks', 'DIR')} {option('copy', True)})"),
            (
                ("micrograph_shape_px",),
                (program, target) == ("relion", "cs"),
                "for RELION's coordinates that go to cryoSPARC",
            ),
        ):
            idle = [name for name in names if getattr(self, name) != defaults[name]]
            if self.aberrations is False and "aberrations" in names:
                idle = ["aberrations"]
            if idle and not is_used:
                subject, verb = " and ".join(map(option, idle)), "it is" if len(idle) == 1 else "they are"
                text = f"{subject} would do nothing here: {verb} {purpose}"
                add = f"Add {option('link_stacks', 'DIR')} {option('copy', True)}, or leave it out."
                leave_out = f"Leave {'it' if len(idle) == 1 else 'them'} out."
                if purpose == with_map and moves:
                    leave_out = f"Add {option('micrographs', 'FILE')}, or {leave_out[0].lower()}{leave_out[1:]}"
                raise UsageError(text, hint=add if {*idle} <= {"invert", "normalise"} and to_file else leave_out)

    def _refuse_idle_onto(self, program: Program) -> None:
        """Refuse options of other conversions, where a file gets something onto its own rows."""
        used = {"onto", "take", "unmatched", "classes", "min_posterior", "verify"}
        used |= {item.name for kind in (MatchOptions, OpticsDefaults, ImageSearchOptions) for item in declared(kind)}
        used |= {"pose_from", "from_ancestors"} if program == "cryosparc" else set()
        used |= {"odd_aberrations"} if "aberrations" in (self.take or ()) else set()
        idle = [item for item in declared(ConvertOptions) if item.name not in used]
        names = [item.name for item in idle if getattr(self, item.name) != item.default]
        if names:
            subject, verb = " and ".join(map(option, names)), "does" if len(names) == 1 else "do"
            text = f"{subject} {verb} nothing with {option('onto')}: its rows keep what is not taken"
            raise UsageError(text, option="onto", hint=f"Leave {'it' if len(names) == 1 else 'them'} out.")
