"""What can be asked of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from cryobridge.errors import UsageError
from cryobridge.formats.cryosparc.particles_write import Contrast
from cryobridge.formats.optics import KnownOptics
from cryobridge.formats.relion.particles_write import Version
from cryobridge.model.convention import Convention
from cryobridge.options import as_path

Target: TypeAlias = Literal["star", "cs", "pickles"]
Program: TypeAlias = Literal["cryosparc", "relion", "pickles"]
_PICKLES = (".pkl", ".pickle", ".p")
# RELION's releases, and the layout of STAR files that each writes.
LAYOUTS: dict[str, Version] = {"3.0": "3.0", "3.1": "3.1", "4": "3.1", "4.0": "3.1", "5": "5", "5.0": "5"}


def target_of(output: Path, asked: Target | None = None) -> Target:
    """Return what is to be written: what is asked for, else what the output's name says.

    Raises
    ------
    UsageError
        If the name does not tell, or belongs to something else than what is asked for.
    """
    by_name: dict[str, Target] = {".star": "star", ".cs": "cs"}
    named = by_name.get(output.suffix)
    target: Target | None = asked or named
    if target is None:
        raise UsageError(
            f"-o {output}: its name does not tell what to write",
            hint="End it in .star or .cs, or give --to pickles for a folder of poses.pkl and ctf.pkl.",
        )
    if target != (named or "pickles"):
        raise UsageError(
            f"-o {output} does not go with --to {target}",
            hint="STAR files end in .star, cryoSPARC's in .cs; pickles go into a folder.",
        )
    if target == "pickles" and output.suffix in _PICKLES:
        raise UsageError(
            f"-o {output} is no name of a folder, which pickles go into as poses.pkl and ctf.pkl",
            hint=f"Give a folder: -o {output.with_suffix('')}, or -o . for the one that you are in.",
        )
    return target


@dataclass(frozen=True)
class ConvertOptions:
    """What is asked for; None for what is not.

    Parameters
    ----------
    target
        What is written.
    relion
        The release of RELION that a STAR file is for, such as ``"4"`` (see `LAYOUTS`); 3.1 if not given.
    convention
        The placement of cryoSPARC's coordinates on RELION's micrographs; None for the usual one.
    pose_from
        The alignment that poses are read from.
    class_numbers
        Classes to keep, counted as the program of the input shows them: cryoSPARC from 0, RELION from 1.
    min_posterior
        The least probability of its class that a particle is kept with.
    known
        Optics values for files that don't say.
    contrast
        How particles look in the images, for a `.cs` file that is made of files that don't say.
    aberrations
        Write what has no established sign too.
    link_stacks
        A folder for links to the image stacks.
    copy
        Copies in that folder instead of links.
    strip_uid
        Take cryoSPARC's 21-digit uid off the names of micrographs and links.
    micrograph_path
        A folder that all micrographs are said to be in.
    datadir, strip_prefix
        See `cryobridge.formats.image_search.ImageSearch`.
    micrograph_shape_px
        ny, nx of all micrographs, for coordinates that go to cryoSPARC.

    Raises
    ------
    UsageError
        If a value is none of those that there are.

    Examples
    --------
    >>> ConvertOptions("star", relion="5", class_numbers=(0, 2), link_stacks="relion/stacks")
    """

    target: Target
    relion: str | None = None
    convention: Convention | None = None
    pose_from: str | None = None
    class_numbers: tuple[int, ...] = ()
    min_posterior: float | None = None
    known: KnownOptics = field(default_factory=KnownOptics)
    contrast: Contrast | None = None
    aberrations: bool = False
    link_stacks: Path | None = None
    copy: bool = False
    strip_uid: bool = False
    micrograph_path: str | None = None
    datadir: Path | None = None
    strip_prefix: str | None = None
    micrograph_shape_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("target", self.target, get_args(Target)),
            ("relion", self.relion, (None, *LAYOUTS)),
            ("contrast", self.contrast, (None, *get_args(Contrast))),
        ):
            if value not in known:
                choices = ", ".join(repr(choice) for choice in known if choice is not None)
                raise UsageError(f"{name}: {value!r} is none of {choices}", hint=f"Give {name} one of these.")
        for name in ("link_stacks", "datadir"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else as_path(value, name))

    @property
    def layout(self) -> Version:
        """The layout of a STAR file."""
        return LAYOUTS[self.relion or "3.1"]

    @property
    def placement(self) -> Convention:
        """The placement that is taken."""
        return Convention() if self.convention is None else self.convention

    def refuse_idle(self, program: Program) -> None:
        """Refuse options that would do nothing in this direction.

        Raises
        ------
        UsageError
            If there is one.
        """
        to_star, to_pickles = self.target == "star", self.target == "pickles"
        moves_coordinates = {program, self.target} in ({"cryosparc", "star"}, {"relion", "cs"})
        idle = {
            "--relion": (self.relion is not None and not to_star, "for STAR output"),
            "--flip-x, --flip-y and --swap-xy": (
                self.convention is not None and not moves_coordinates,
                "for coordinates that go from cryoSPARC to RELION or back",
            ),
            "--pose-from": (self.pose_from is not None and program != "cryosparc", "for cryoSPARC files"),
            "--contrast": (self.contrast is not None and self.target != "cs", "for .cs output"),
            "--aberrations": (
                self.aberrations and (to_pickles or not moves_coordinates),
                "for going from cryoSPARC to RELION or back",
            ),
            "--link-stacks": (self.link_stacks is not None and to_pickles, "for STAR and .cs output"),
            "--copy": (self.copy and self.link_stacks is None, "for --link-stacks"),
            "--strip-uid": (self.strip_uid and to_pickles, "for STAR and .cs output"),
            "--micrograph-path": (self.micrograph_path is not None and to_pickles, "for STAR and .cs output"),
            "--micrograph-shape": (
                self.micrograph_shape_px is not None and (program, self.target) != ("relion", "cs"),
                "for RELION's coordinates that go to cryoSPARC",
            ),
        }
        for option, (is_idle, purpose) in idle.items():
            if is_idle:
                raise UsageError(f"{option} would do nothing here: it is {purpose}", hint="Leave it out.")
