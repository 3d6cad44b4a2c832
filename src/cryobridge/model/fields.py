"""The one description of each column: what a quantity of the model is, and where it stands in each program.

Reader, writer, the columns that a target has no place for, verification, meanings and unit checks follow from the rows
of `FIELDS`. A new column is one row, whose name is a field of the model (``ctf.phase_shift_rad``) or one of
`ParticleSet.columns` (``columns.dose``). What needs more than a factor (poses, shifts, image names, coordinates,
aberrations) has rows too, marked as coded: the names stand here, the formulas in the readers and writers.

Nothing heavy is imported, so that the command line may look names up for completion and help.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["float", "int", "text", "bool", "vector"]
Program = Literal["cryosparc", "relion"]

# cryoSPARC's groups of columns that hold an alignment; in names of columns it stands for the one that is taken.
ALIGNMENT = r"alignments(2D|3D|3D_multi)|\w+_class_\d+"
ALIGNMENT_GROUP = "{alignment}"
# In names of columns that come once for each latent coordinate it stands for the number, by which each program counts.
MODE = "{mode}"
_A_NUMBER = "(0|[1-9][0-9]{0,5})"
_OF_RELION = ("rln", "cryobridge")  # how labels of STAR files begin


@dataclass(frozen=True)
class Mistake:
    """A cause that is recognised by the size of the values.

    Parameters
    ----------
    low, high
        Where the largest magnitude of the column then lies.
    cause
        The end of a sentence about the values, such as ``looks like µm; Å expected (× 10,000)``.
    """

    low: float
    high: float
    cause: str


@dataclass(frozen=True)
class Quantity:
    """What a column can hold: kind, unit and plausible values, without name and meaning.

    Parameters
    ----------
    kind
        ``vector`` is RELION's bracketed list in one token.
    unit
        As people write it; empty where there is none.
    low, high
        Bounds of plausible values, both included; None for no bound.
    legal
        Values that stand for "not known" or "none" and are right wherever they lie.
    mistakes
        Causes to look for when a value is out of bounds.
    """

    kind: Kind
    unit: str = ""
    low: float | None = None
    high: float | None = None
    legal: tuple[float, ...] = ()
    mistakes: tuple[Mistake, ...] = ()


_PI = math.pi
# RELION's words for "not set": 999 for priors and accuracies before they are known, -999 for picks by hand.
_UNSET = (999.0, -999.0)
_PERCENTAGE = Mistake(1, 100, "looks like a percentage; a fraction expected (÷ 100)")

QUANTITIES: dict[str, Quantity] = {
    "text": Quantity("text"),
    "vector": Quantity("vector"),
    "flag": Quantity("bool", low=0, high=1),
    "int": Quantity("int"),
    "count": Quantity("int", low=0),
    "number": Quantity("int", low=1),
    "setting": Quantity("int", low=-1),
    "identity": Quantity("int", low=0),
    "class_number": Quantity("int", low=0, legal=(-999,)),
    "dimension": Quantity("int", low=2, high=3),
    "half_from_0": Quantity(
        "int", low=0, high=1, mistakes=(Mistake(2, 2, "looks like halves counted from 1; 0 and 1 expected"),)
    ),
    "half_from_1": Quantity("int", low=0, high=2),
    "sign": Quantity("float", low=-1, high=1),
    "value": Quantity("float"),
    "positive": Quantity("float", low=0),
    "fraction": Quantity("float", "fraction", 0, 1, mistakes=(_PERCENTAGE,)),
    "correlation": Quantity("float", low=-1, high=1),
    "flip_ratio": Quantity("float", "fraction", 0, 1, legal=_UNSET),
    "changed_classes": Quantity(
        "float",
        "fraction",
        0,
        1,
        legal=(9999999,),
        mistakes=(Mistake(1, 1e9, "looks like a number of particles; a fraction of them expected"),),
    ),
    "position": Quantity(
        "float",
        "fraction",
        0,
        1,
        mistakes=(Mistake(2, 1e6, "looks like pixels; a fraction expected (÷ the micrograph's edge)"),),
    ),
    "coordinate_px": Quantity("float", "px", -10_000, 100_000),
    "size_px": Quantity("int", "px", 1, 100_000),
    "pixel_size_A": Quantity(
        "float",
        "Å",
        0.1,
        50,
        mistakes=(
            Mistake(0.01, 0.1, "looks like nm; Å expected (× 10)"),
            Mistake(1e-12, 1e-8, "looks like m; Å expected (× 10¹⁰)"),
        ),
    ),
    "detector_um": Quantity("float", "µm", 0.1, 500),
    "magnification": Quantity("float", "", 100, 10_000_000),
    "voltage_kV": Quantity(
        "float", "kV", 60, 400, mistakes=(Mistake(60e3, 400e3, "looks like V; kV expected (÷ 1,000)"),)
    ),
    # Cs-corrected microscopes come with 0 or 0.001.
    "cs_mm": Quantity(
        "float",
        "mm",
        0,
        10,
        mistakes=(
            Mistake(10, 1e4, "looks like µm; mm expected (÷ 1,000)"),
            Mistake(1e4, 1e7, "looks like nm; mm expected (÷ 1,000,000)"),
            Mistake(1e7, 1e8, "looks like Å; mm expected (÷ 10,000,000)"),
        ),
    ),
    "contrast": Quantity("float", "fraction", 0, 1, mistakes=(_PERCENTAGE,)),
    # 0 stands for no CTF: files without CTF information are padded with it.
    "defocus_A": Quantity(
        "float",
        "Å",
        500,
        100_000,
        legal=(0,),
        mistakes=(
            Mistake(0.05, 20, "looks like µm; Å expected (× 10,000)"),
            Mistake(5e-8, 2e-5, "looks like m; Å expected (× 10¹⁰)"),
        ),
    ),
    "astigmatism_A": Quantity("float", "Å", 0, 100_000),
    "bfactor_A2": Quantity("float", "Å²"),
    "aberration_A": Quantity("float", "Å"),
    "mrad": Quantity("float", "mrad", -100, 100),
    "anisomag": Quantity(
        "float",
        low=-0.3,
        high=0.3,
        mistakes=(Mistake(0.7, 1.3, "looks like the whole matrix; the identity taken off expected"),),
    ),
    "magnification_diagonal": Quantity(
        "float",
        low=0.7,
        high=1.3,
        mistakes=(Mistake(0, 0.3, "looks like cryoSPARC's matrix without the identity; add 1 and invert"),),
    ),
    "magnification_cross": Quantity("float", low=-0.3, high=0.3),
    # Two turns: cryoSPARC does not reduce its angles, and real ones reach 4.69.
    "angle_rad": Quantity(
        "float",
        "rad",
        -4 * _PI,
        4 * _PI,
        mistakes=(Mistake(4 * _PI, 720, "looks like degrees; radians expected (× π/180)"),),
    ),
    "angle_deg": Quantity("float", "deg", -720, 720, legal=_UNSET),
    "accuracy_deg": Quantity("float", "deg", 0, 180, legal=(999,)),
    "accuracy_A": Quantity("float", "Å", 0),
    "shift_px": Quantity("float", "px", -5_000, 5_000),
    "shift_A": Quantity("float", "Å", -10_000, 10_000),
    "motion_px": Quantity(
        "float",
        "px",
        -5_000,
        5_000,
        mistakes=(Mistake(9999, 9999, "holds -9999, which marks frames whose motion was not found"),),
    ),
    "motion_A": Quantity("float", "Å", 0, 10_000),
    "length_A": Quantity("float", "Å", 0, legal=(-1,)),
    "limit_A": Quantity("float", "Å", 0, 100_000, legal=(-1,)),
    # The first shells, empty classes and failed fits have 999, inf and -1.
    "resolution_A": Quantity("float", "Å", 0, 10_000, legal=(-1, math.inf)),
    "frequency": Quantity("float", "1/Å", 0, 10),
    "dose": Quantity("float", "e/Å²", 0, 1_000),
}


@dataclass(frozen=True)
class Unit:
    """How a program counts what the model counts otherwise: its value is factor × value of the model + offset.

    Parameters
    ----------
    quantity
        What the program's column holds, a key of `QUANTITIES`.
    factor, offset
        Of the formula.
    """

    quantity: str
    factor: float = 1.0
    offset: int = 0

    def to_model(self, values: Any) -> Any:
        """Return the model's values of the program's."""
        values = values - self.offset if self.offset else values
        import numpy as np  # late, since the command line is made of these fields without it

        with np.errstate(over="ignore"):
            return values if self.factor == 1 else values * (1 / self.factor)

    def from_model(self, values: Any) -> Any:
        """Return the program's values of the model's."""
        import numpy as np  # late, since the command line is made of these fields without it

        with np.errstate(over="ignore"):
            values = values if self.factor == 1 else values * self.factor
        return values + self.offset if self.offset else values


DEGREE = Unit("angle_deg", 180 / math.pi)
CLASS_FROM_0 = Unit("count", offset=-1)
HALF_FROM_0 = Unit("half_from_0", offset=-1)

# Of columns that mean different things: what each holds, a key of `QUANTITIES`, and what it means.
Meanings = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Field:
    """A quantity of the model and where each program has it.

    Parameters
    ----------
    name
        Where it is in a `ParticleSet`: ``half_set``, ``ctf.scale``, ``optics.voltage_kV``, or ``columns.NAME`` for one
        without a field of its own. Those of ``optics`` are per optics group, all others per particle.
    title
        What people call it. Rows of one title, such as the two defoci, are one thing to the user.
    quantity
        What the model's values are, a key of `QUANTITIES`: kind, unit and plausible range.
    meaning
        What it holds, in one line.
    cs, star
        Its column in cryoSPARC and RELION, empty where there is none; several columns, where one quantity needs them,
        with what each of them holds.
    cs_also, star_also
        Other columns that it is read from, the first that is there.
    pkl
        Its column in ctf.pkl, counted from 0.
    cs_unit, star_unit, pkl_unit
        Where a program counts otherwise than the model.
    cs_width
        How often cryoSPARC repeats the value, as for the two edges of a box; 0 for a number.
    absent
        What is true where a file has no such column; None where it is unknown.
    tolerance
        How far a value may be from another after rounding, in the model's unit; None for 10⁻⁵ of the largest, and for
        whole numbers for none at all.
    needed_for
        What can't be done without it: ``ctf``, or anything with the ``image``.
    is_in_3_0
        Whether the layout of RELION 3.0, which has no optics groups, has a column for it.
    is_coded
        Whether readers and writers have a formula of their own.
    """

    name: str
    title: str
    quantity: str
    meaning: str
    cs: str | Meanings = ""
    star: str | Meanings = ""
    cs_also: tuple[str, ...] | Meanings = ()
    star_also: tuple[str, ...] | Meanings = ()
    pkl: int | None = None
    cs_unit: Unit | None = None
    star_unit: Unit | None = None
    pkl_unit: Unit | None = None
    cs_width: int = 0
    absent: float | None = None
    tolerance: float | None = None
    needed_for: Literal["ctf", "image", ""] = ""
    is_in_3_0: bool = True
    is_coded: bool = False

    @property
    def part(self) -> str:
        """The part of the set that it is in, such as ``ctf``; empty for one of the set itself."""
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        """Its name in that part."""
        return self.name.rpartition(".")[2]

    @property
    def is_of_optics(self) -> bool:
        """Whether it is per optics group."""
        return self.name.startswith("optics.")

    @property
    def kind(self) -> Kind:
        """What the model's values are."""
        return QUANTITIES[self.quantity].kind

    def unit(self, program: Program) -> Unit | None:
        """Return how a program counts it, None for as the model does."""
        return self.cs_unit if program == "cryosparc" else self.star_unit

    def columns(self, program: Program) -> tuple[str, ...]:
        """Return the columns that a program writes it to."""
        own = self.cs if program == "cryosparc" else self.star
        return ((own,) if own else ()) if isinstance(own, str) else tuple(own)

    def names(self, program: Program) -> tuple[str, ...]:
        """Return all columns that it is read from."""
        return (*self.columns(program), *(self.cs_also if program == "cryosparc" else self.star_also))

    def describe(self, program: Program, column: str) -> tuple[str, str] | None:
        """Return what one of its columns holds, a key of `QUANTITIES`, and what it means; None for another column."""
        own = (self.cs, self.cs_also) if program == "cryosparc" else (self.star, self.star_also)
        for columns in own:
            for name, found in columns.items() if isinstance(columns, Mapping) else ():
                if column == name or (MODE in name and numbered((name,), (column,))):
                    return found
        unit = self.unit(program)
        return (unit.quantity if unit else self.quantity, self.meaning) if column in self.names(program) else None


_ANGLE_RAD = math.radians(1e-4)
_DEFOCUS_A = 1e-2

# A list, so that a program that stands on this one can add columns of its own.
FIELDS: list[Field] = [
    Field("uid", "uid", "identity", "Identity of the row: 64 bits, random", cs="uid", is_coded=True),
    Field(
        "images",
        "images",
        "text",
        "Particle image",
        cs={
            "blob/path": ("text", "File; relative to the project folder, or to the .cs file after a leading >"),
            "blob/idx": ("count", "Slice in the file, counted from 0"),
        },
        star={"rlnImageName": ("text", "Particle image, as index@stack; counted from 1")},
        is_coded=True,
    ),
    # Optics groups
    Field(
        "optics.group_id",
        "optics group",
        "count",
        "Exposure group; numbers may be missing",
        cs="ctf/exp_group_id",
        cs_also=("location/exp_group_id",),
        star={"rlnOpticsGroup": ("number", "Optics group, counted from 1")},
        is_in_3_0=False,
        is_coded=True,
    ),
    Field(
        "optics.name",
        "name of the optics group",
        "text",
        "Optics group's name",
        star="rlnOpticsGroupName",
        is_in_3_0=False,
        is_coded=True,
    ),
    Field(
        "optics.voltage_kV",
        "voltage",
        "voltage_kV",
        "Acceleration voltage",
        cs="ctf/accel_kv",
        star="rlnVoltage",
        pkl=5,
        needed_for="ctf",
    ),
    Field(
        "optics.spherical_aberration_mm",
        "spherical aberration",
        "cs_mm",
        "Spherical aberration",
        cs="ctf/cs_mm",
        star="rlnSphericalAberration",
        pkl=6,
        needed_for="ctf",
    ),
    Field(
        "optics.amplitude_contrast",
        "amplitude contrast",
        "contrast",
        "Amplitude contrast",
        cs="ctf/amp_contrast",
        cs_also=("ctf/amp_constrast", "ctf/ac"),
        star="rlnAmplitudeContrast",
        pkl=7,
        needed_for="ctf",
    ),
    Field(
        "optics.pixel_size_A",
        "pixel size",
        "pixel_size_A",
        "Pixel size of the particle image",
        cs="blob/psize_A",
        star="rlnImagePixelSize",
        star_also={"rlnPixelSize": ("pixel_size_A", "Pixel size of images and references")},
        pkl=1,
        needed_for="image",
    ),
    Field(
        "optics.micrograph_pixel_size_A",
        "pixel size of the micrographs",
        "pixel_size_A",
        "Pixel size of the micrograph",
        cs="location/micrograph_psize_A",
        cs_also=("micrograph_blob/psize_A",),
        star="rlnMicrographPixelSize",
        is_in_3_0=False,
    ),
    Field(
        "optics.movie_pixel_size_A",
        "pixel size of the movies",
        "pixel_size_A",
        "Pixel size of the movie, before binning",
        cs_also=("movie_blob/psize_A",),
        star="rlnMicrographOriginalPixelSize",
        is_in_3_0=False,
    ),
    Field(
        "optics.box_px",
        "box",
        "size_px",
        "Edge of the particle image",
        cs="blob/shape",
        cs_width=2,
        star="rlnImageSize",
        pkl=0,
        needed_for="image",
        is_in_3_0=False,
    ),
    Field(
        "optics.aberrations.beam_tilt_A",
        "beam tilt",
        "aberration_A",
        "Beam tilt as Cs × sin(tilt)",
        cs={"ctf/tilt_A": ("aberration_A", "Beam tilt as Cs × sin(tilt); x, y")},
        star={"rlnBeamTiltX": ("mrad", "Beam tilt along x"), "rlnBeamTiltY": ("mrad", "Beam tilt along y")},
        is_coded=True,
    ),
    Field(
        "optics.aberrations.trefoil_A",
        "trefoil",
        "aberration_A",
        "Trefoil",
        cs={"ctf/trefoil_A": ("aberration_A", "Trefoil; cosine, sine")},
        star={"rlnOddZernike": ("vector", "Antisymmetric aberrations: list of Zernike coefficients")},
        is_in_3_0=False,
        is_coded=True,
    ),
    Field(
        "optics.aberrations.tetrafoil_A",
        "tetrafoil",
        "aberration_A",
        "Tetrafoil",
        cs={"ctf/tetra_A": ("aberration_A", "Fourth-order aberrations; cosine and sine of 2φ, of 4φ")},
        star={"rlnEvenZernike": ("vector", "Symmetric aberrations: list of Zernike coefficients")},
        is_in_3_0=False,
        is_coded=True,
    ),
    Field(
        "optics.aberrations.magnification",
        "anisotropic magnification",
        "value",
        "Anisotropic magnification",
        cs={"ctf/anisomag": ("anisomag", "Anisotropic magnification, row by row, minus the identity; 0 for none")},
        star={
            "rlnMagMat00": ("magnification_diagonal", "Anisotropic magnification, xx; 1 for none"),
            "rlnMagMat01": ("magnification_cross", "Anisotropic magnification, xy; 0 for none"),
            "rlnMagMat10": ("magnification_cross", "Anisotropic magnification, yx; 0 for none"),
            "rlnMagMat11": ("magnification_diagonal", "Anisotropic magnification, yy; 1 for none"),
        },
        is_in_3_0=False,
        is_coded=True,
    ),
    # Contrast transfer
    Field(
        "optics.aberrations.lower_even",
        "further phase shift, defocus, Cs and astigmatism",
        "value",
        "Symmetric aberrations that both programs have other columns for",
        is_in_3_0=False,
        is_coded=True,
    ),
    Field(
        "optics.aberrations.higher_rad",
        "Zernike terms of higher orders",
        "value",
        "The largest coefficient of an order that only RELION has",
        is_in_3_0=False,
        is_coded=True,
    ),
    Field(
        "ctf.defocus_u_A",
        "defocus",
        "defocus_A",
        "Defocus along the first axis, positive for underfocus; 0 for no CTF",
        cs="ctf/df1_A",
        star="rlnDefocusU",
        pkl=2,
        tolerance=_DEFOCUS_A,
    ),
    Field(
        "ctf.defocus_v_A",
        "defocus",
        "defocus_A",
        "Defocus along the second axis, positive for underfocus; 0 for no CTF",
        cs="ctf/df2_A",
        star="rlnDefocusV",
        pkl=3,
        tolerance=_DEFOCUS_A,
    ),
    Field(
        "ctf.defocus_angle_rad",
        "defocus angle",
        "angle_rad",
        "Angle from x to the first axis of the defocus",
        cs="ctf/df_angle_rad",
        star="rlnDefocusAngle",
        star_unit=DEGREE,
        pkl=4,
        pkl_unit=DEGREE,
        tolerance=_ANGLE_RAD,
    ),
    Field(
        "ctf.phase_shift_rad",
        "phase shift",
        "angle_rad",
        "Phase shift of a phase plate",
        cs="ctf/phase_shift_rad",
        star="rlnPhaseShift",
        star_unit=DEGREE,
        pkl=8,
        pkl_unit=DEGREE,
        absent=0.0,
        tolerance=_ANGLE_RAD,
    ),
    Field(
        "ctf.bfactor_A2",
        "CTF B-factor",
        "bfactor_A2",
        "B-factor of the CTF's envelope",
        cs="ctf/bfactor",
        star="rlnCtfBfactor",
        absent=0.0,
    ),
    Field(
        "ctf.scale",
        "CTF scale",
        "value",
        "Scale of the CTF, normally 1",
        cs="ctf/scale",
        star="rlnCtfScalefactor",
        absent=1.0,
    ),
    Field(
        "ctf.shift_A",
        "shift by aberrations",
        "aberration_A",
        "How far odd aberrations move the image",
        cs={"ctf/shift_A": ("aberration_A", "Shift by aberrations, subtracted from that of the pose; x, y")},
        absent=0,
        is_coded=True,
    ),
    # Alignment
    Field(
        "poses.matrix",
        "orientation",
        "value",
        "Orientation",
        cs={"{alignment}/pose": ("angle_rad", "Rotation vector (3D) or angle in the plane (2D)")},
        star={
            "rlnAngleRot": ("angle_deg", "First Euler angle, rot"),
            "rlnAngleTilt": ("angle_deg", "Second Euler angle, tilt"),
            "rlnAnglePsi": ("angle_deg", "Third Euler angle, psi, in the plane; -999 for not known"),
        },
        is_coded=True,
    ),
    Field(
        "poses.shift_A",
        "shift",
        "shift_A",
        "Shift in the plane",
        cs={
            "{alignment}/shift": ("shift_px", "x, y in pixels of this group's psize_A, subtracted to find the centre"),
            "{alignment}/psize_A": (
                "pixel_size_A",
                "Pixel size that the shift is counted in; may differ from blob/psize_A",
            ),
        },
        star={
            "rlnOriginXAngst": ("shift_A", "Shift along x, subtracted to find the centre"),
            "rlnOriginYAngst": ("shift_A", "Shift along y, subtracted to find the centre"),
        },
        star_also={
            "rlnOriginX": ("shift_px", "Shift along x (RELION 3.0), subtracted to find the centre"),
            "rlnOriginY": ("shift_px", "Shift along y (RELION 3.0), subtracted to find the centre"),
        },
        is_coded=True,
    ),
    Field(
        "class_number",
        "classes",
        "class_number",
        "Class, counted from 1; 0 or -999 for none",
        cs={"{alignment}/class": ("count", "Class, counted from 0")},
        star="rlnClassNumber",
        cs_unit=CLASS_FROM_0,
    ),
    Field(
        "class_posterior",
        "class posterior",
        "fraction",
        "Probability of the class",
        cs="{alignment}/class_posterior",
    ),
    Field(
        "half_set",
        "half sets",
        "half_from_1",
        "Half-set, 1 or 2; 0 for none",
        cs={"{alignment}/split": ("half_from_0", "Half-set, 0 or 1; of use for 3D alignments")},
        star="rlnRandomSubset",
        cs_unit=HALF_FROM_0,
    ),
    # RELION keeps columns that it does not know; the name is no label of its own, now or later.
    Field(
        "latent",
        "latent coordinates",
        "value",
        "Latent coordinates of the particle",
        cs={
            "components_mode_{mode}/component": ("count", "Component of the variability, counted from 0"),
            "components_mode_{mode}/value": ("value", "Coordinate of the particle along the component"),
        },
        star={"cryobridgeLatent{mode}": ("value", "Latent coordinate of the particle, counted from 1")},
        is_in_3_0=True,
        is_coded=True,
    ),
    # Micrographs
    Field(
        "locations",
        "coordinates",
        "value",
        "Where the particle lies on its micrograph",
        cs={
            "location/micrograph_path": ("text", "Micrograph"),
            "location/micrograph_shape": ("size_px", "ny, nx of the micrograph"),
            "location/center_x_frac": ("position", "x of the particle, as a fraction of nx"),
            "location/center_y_frac": ("position", "y of the particle, as a fraction of ny from the first stored row"),
        },
        star={
            "rlnMicrographName": ("text", "Micrograph"),
            "rlnCoordinateX": ("coordinate_px", "x on the micrograph; the first pixel is 0"),
            "rlnCoordinateY": ("coordinate_px", "y on the micrograph, from the first stored row"),
        },
        is_coded=True,
    ),
    Field(
        "pick_score",
        "pick scores",
        "value",
        "Score of the pick; -999 for picked by hand",
        cs="pick_stats/ncc_score",
        star="rlnAutopickFigureOfMerit",
    ),
    # Filaments
    Field(
        "helix.tube",
        "filaments",
        "count",
        "Filament on its micrograph, counted from 1",
        star="rlnHelicalTubeID",
    ),
    Field(
        "helix.uid",
        "uid of the filaments",
        "identity",
        "The filament that the segment is of",
        cs="filament/filament_uid",
        is_coded=True,
    ),
    Field(
        "helix.track_length_A",
        "distance along the filament",
        "length_A",
        "Distance from the filament's start",
        cs="filament/position_A",
        cs_also=("filament/arc_length_A",),
        star="rlnHelicalTrackLengthAngst",
    ),
]


# What a `cryobridge.model.micrographs.MicrographSet` has beside the optics and the CTF, which it shares with particles.
MICROGRAPH_FIELDS: tuple[Field, ...] = (
    Field("name", "micrographs", "text", "Micrograph", cs="micrograph_blob/path", star="rlnMicrographName"),
    Field(
        "name_no_dw",
        "micrographs without dose weighting",
        "text",
        "Micrograph without dose weighting",
        cs="micrograph_blob_non_dw/path",
        star="rlnMicrographNameNoDW",
    ),
    Field(
        "shape_px",
        "size of the micrographs",
        "size_px",
        "ny, nx of the micrograph",
        cs="micrograph_blob/shape",
        cs_width=2,
        is_coded=True,
    ),
    Field(
        "pixel_size_A",
        "pixel size of the micrographs",
        "pixel_size_A",
        "Pixel size of the micrograph",
        cs="micrograph_blob/psize_A",
        is_coded=True,
    ),
    Field(
        "fit.resolution_A",
        "resolution of the CTF fit",
        "resolution_A",
        "Resolution to which the Thon rings fit",
        cs="ctf/ctf_fit_to_A",
        cs_also=("ctf_stats/ctf_fit_to_A",),
        star="rlnCtfMaxResolution",
    ),
    Field(
        "fit.score",
        "score of the CTF fit",
        "value",
        "Correlation of the CTF fit with the power spectrum",
        cs="ctf/cross_corr_ctffind4",
        cs_also=("ctf_stats/cross_corr",),
        star="rlnCtfFigureOfMerit",
    ),
    Field(
        "fit.ice_thickness",
        "thickness of the ice",
        "value",
        "Ice thickness, relative; about 1 for vitreous ice",
        cs="ctf_stats/ice_thickness_rel",
    ),
    Field("movies.name", "movies", "text", "Movie", cs="movie_blob/path", star="rlnMicrographMovieName"),
    Field(
        "movies.shape_px",
        "size of the movies",
        "size_px",
        "ny, nx of a frame",
        cs={"movie_blob/shape": ("size_px", "Frames, ny and nx of the movie")},
        star={
            "rlnImageSizeX": ("size_px", "Width of the image"),
            "rlnImageSizeY": ("size_px", "Height of the image"),
        },
        is_coded=True,
    ),
    Field(
        "movies.n_frames",
        "frames",
        "count",
        "Frames of the movie",
        star={"rlnImageSizeZ": ("size_px", "Depth of the image, or number of movie frames")},
        is_coded=True,
    ),
    Field(
        "movies.pixel_size_A",
        "pixel size of the movies",
        "pixel_size_A",
        "Pixel size of the movie, before binning",
        cs="movie_blob/psize_A",
        star="rlnMicrographOriginalPixelSize",
    ),
    Field(
        "movies.is_gain_corrected",
        "gain correction",
        "flag",
        "The movie is gain-corrected",
        cs="movie_blob/is_gain_corrected",
        is_coded=True,
    ),
    Field(
        "movies.gain.name",
        "gain references",
        "text",
        "Gain reference",
        cs="gain_ref_blob/path",
        star="rlnMicrographGainName",
    ),
    Field(
        "movies.gain.flip_x",
        "flip of the gain reference",
        "flag",
        "The gain reference is to be flipped along x",
        cs="gain_ref_blob/flip_x",
        is_coded=True,
    ),
    Field(
        "movies.gain.flip_y",
        "flip of the gain reference",
        "flag",
        "The gain reference is to be flipped along y",
        cs="gain_ref_blob/flip_y",
        is_coded=True,
    ),
    Field(
        "movies.gain.quarter_turns",
        "rotation of the gain reference",
        "int",
        "Quarter turns of the gain reference",
        cs="gain_ref_blob/rotate_num",
    ),
    Field(
        "movies.defects",
        "defects of the detector",
        "text",
        "List of the detector's defects",
        cs="mscope_params/defect_path",
        star="rlnMicrographDefectFile",
    ),
    Field(
        "movies.dose_e_A2",
        "dose",
        "dose",
        "Dose of the whole movie",
        cs="mscope_params/total_dose_e_per_A2",
    ),
    *(
        Field(f"motion.{kind}.{key}", f"{title} motion", quantity, meaning, cs=f"{kind}_motion/{column}")
        for kind, title in (("rigid", "rigid"), ("spline", "local"))
        for key, column, quantity, meaning in (
            ("path", "path", "text", "File with the motion"),
            ("index", "idx", "count", "Place in the file, counted from 0"),
            ("pixel_size_A", "psize_A", "pixel_size_A", "Pixel size of the movie"),
            ("first_frame", "frame_start", "count", "First frame, counted from 0"),
            ("end_frame", "frame_end", "count", "The frame after the last, counted from 0"),
            ("zero_frame", "zero_shift_frame", "count", "Frame that does not move, counted from 0"),
        )
    ),
    Field(
        "motion.metadata",
        "motion of the micrographs",
        "text",
        "STAR file with the movie's motion",
        star="rlnMicrographMetadata",
    ),
    Field("motion.total_A", "motion", "motion_A", "Length of the motion's path", star="rlnAccumMotionTotal"),
    Field(
        "motion.early_A",
        "early motion",
        "motion_A",
        "Length of the path in the first frames",
        star="rlnAccumMotionEarly",
    ),
    Field(
        "motion.late_A", "late motion", "motion_A", "Length of the path in the last frames", star="rlnAccumMotionLate"
    ),
)
# Where exposures have optics values before a CTF was fitted, by the name of the field of `Optics`.
MICROSCOPE = {
    "group_id": "mscope_params/exp_group_id",
    "voltage_kV": "mscope_params/accel_kv",
    "spherical_aberration_mm": "mscope_params/cs_mm",
}


def field(name: str) -> Field:
    """Return the row of a quantity, such as ``ctf.scale``."""
    return next(item for item in FIELDS if item.name == name)


def micrograph_field(name: str) -> Field:
    """Return the row of a quantity of micrographs, such as ``movies.dose_e_A2``."""
    return next(item for item in MICROGRAPH_FIELDS if item.name == name)


def fields_of(part: str) -> tuple[Field, ...]:
    """Return the rows of a part of the model, such as ``ctf``; those of the set itself for an empty name."""
    return tuple(item for item in FIELDS if item.part == part)


def ctf_fields() -> tuple[Field, ...]:
    """Return the rows that a ctf.pkl has, in the order of its columns."""
    return tuple(sorted((item for item in FIELDS if item.pkl is not None), key=lambda item: item.pkl or 0))


def numbered(names: Iterable[str], columns: Collection[str]) -> tuple[str, ...]:
    """Return names of columns, with those of a file, in the order of their numbers, for a name that has `MODE` in it.

    Examples
    --------
    >>> numbered(["rlnImageName", "cryobridgeLatent{mode}"], ["cryobridgeLatent2", "rlnVoltage", "cryobridgeLatent1"])
    ('rlnImageName', 'cryobridgeLatent1', 'cryobridgeLatent2')
    """
    found: list[str] = []
    for name in names:
        if MODE not in name:
            found.append(name)
            continue
        pattern = re.compile(re.escape(name).replace(re.escape(MODE), _A_NUMBER))
        of_number = {int(match[1]): column for column in columns if (match := pattern.fullmatch(column))}
        found += [of_number[number] for number in sorted(of_number)]
    return tuple(found)


def described(column: str) -> tuple[str, str] | None:
    """Return the quantity that a column holds, a key of `QUANTITIES`, and its meaning; None if it has no row."""
    program: Program = "relion" if column.startswith(_OF_RELION) else "cryosparc"
    group, slash, key = column.partition("/")
    general = f"{ALIGNMENT_GROUP}/{key}" if slash and re.fullmatch(ALIGNMENT, group) else column
    for item in (*FIELDS, *MICROGRAPH_FIELDS):
        # Its own column may be of any group, also one that is called like an alignment.
        found = item.describe(program, column) or item.describe(program, general)
        if found is not None:
            return found
    return None


def absent_value(column: str) -> float | None:
    """Return the value of a column that says the same as if the column was not there; None where its absence says less.

    Examples
    --------
    >>> absent_value("rlnPhaseShift"), absent_value("rlnMagMat00"), absent_value("rlnDefocusU")
    (0.0, 1.0, None)
    """
    programs: tuple[Program, ...] = ("cryosparc", "relion")
    for item in FIELDS:
        for program in programs:
            if column not in item.names(program):
                continue
            if item.part == "optics.aberrations":
                found = item.describe(program, column)
                return 1.0 if found is not None and found[0] == "magnification_diagonal" else 0.0
            unit = item.unit(program)
            return None if item.absent is None else float(unit.from_model(item.absent) if unit else item.absent)
    return None
