"""What can be asked of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cryobridge.convention import Convention
from cryobridge.errors import UsageError
from cryobridge.formats.optics import KnownOptics

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.relion.particles_write import Version

Target = Literal["star", "cs", "pickles"]
Program = Literal["cryosparc", "relion", "pickles"]


@dataclass(frozen=True)
class ConvertOptions:
    """What is asked for; None for what is not.

    Parameters
    ----------
    target
        What is written.
    relion
        The layout of a STAR file.
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
        See `cryobridge.paths.ImageSearch`.
    micrograph_shape_px
        ny, nx of all micrographs, for coordinates that go to cryoSPARC.
    """

    target: Target
    relion: Version | None = None
    convention: Convention | None = None
    pose_from: str | None = None
    class_numbers: tuple[int, ...] = ()
    min_posterior: float | None = None
    known: KnownOptics = field(default_factory=KnownOptics)
    aberrations: bool = False
    link_stacks: Path | None = None
    copy: bool = False
    strip_uid: bool = False
    micrograph_path: str | None = None
    datadir: Path | None = None
    strip_prefix: str | None = None
    micrograph_shape_px: tuple[int, int] | None = None

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
