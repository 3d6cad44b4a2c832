"""The JSON of an inspection: its keys and their types, from which its schema is derived (`docs/make_schemas.py`)."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from cryobridge.formats import folders, registry
from cryobridge.jobs.inspection.projects import CRYOSPARC_PROJECT, FOLDER, RELION_PROJECT
from cryobridge.report import Message


class FieldKeys(TypedDict):
    """A column or array.

    Attributes
    ----------
    name, dtype
        As the file has them.
    shape
        Of one row; [] for a number.
    unit, meaning
        From the table of known columns; empty for an unknown one.
    min, median, max
        Over all finite elements; null for texts and identifiers, and without statistics.
    distinct
        Number of distinct elements; null where not counted.
    nan
        Number of NaN elements.
    histogram
        Counts in equal bins from min to max.
    example
        The first value, as text.
    problems
        What is implausible, in sentences.
    """

    name: str
    dtype: str
    shape: list[int]
    unit: str
    meaning: str
    min: float | str | None
    median: float | str | None
    max: float | str | None
    distinct: int | None
    nan: int | None
    histogram: list[int]
    example: str
    problems: list[str]


class UseKeys(TypedDict):
    """Whether a file is ready for a job.

    Attributes
    ----------
    title
        How it is shown; empty for what is a part of another use, or makes no sense for this kind of file.
    ready
        Whether nothing is missing or refused.
    missing
        The columns or files that are missing.
    hint
        Where they are, or what to do.
    reasons
        Why what is there would be refused, or read wrongly.
    no_images
        Why it has no command though it is ready: its images are not where they are looked for.
    commands
        What does it, to be pasted; several follow each other.
    """

    title: str
    ready: bool
    missing: list[str]
    hint: str
    reasons: list[str]
    no_images: str
    commands: list[str]


class InspectionKeys(TypedDict):
    """What every file and folder has.

    Attributes
    ----------
    path
        As it was given.
    kind
        What it is, recognised by its content.
    title
        What it is, in a few words.
    rows
        Rows, images or particles; null where there are none to count.
    facts
        What the terminal shows above the table, by name.
    fields
        Columns or arrays.
    uses
        Job -> whether the file is ready for it.
    problems
        About the file as a whole, in sentences.
    notes
        What was assumed.
    warnings
        What is wrong, also in the columns.
    """

    path: str
    kind: str
    title: str
    rows: int | None
    facts: dict[str, str]
    fields: list[FieldKeys]
    uses: dict[str, UseKeys]
    problems: list[str]
    notes: list[Message]
    warnings: list[Message]


class ShortFileKeys(TypedDict):
    """An image file with fewer sections than are referred to; ``highest_index`` counts from 1."""

    name: str
    sections: int
    highest_index: int


class UnreadableFileKeys(TypedDict):
    """An image file that can't be read, and why."""

    name: str
    problem: str


class ImageFilesKeys(TypedDict):
    """The image files that metadata name.

    Attributes
    ----------
    files, found
        How many there are in all, and how many were found.
    missing
        Names that were not found.
    too_short
        Files with fewer sections than are referred to.
    unreadable
        Files that can't be read.
    remedy
        The options that would find the missing ones; null where none is known.
    """

    files: int
    found: int
    missing: list[str]
    too_short: list[ShortFileKeys]
    unreadable: list[UnreadableFileKeys]
    remedy: str | None


class TableKeys(TypedDict, total=False):
    """Of particle tables, where it was asked for.

    Attributes
    ----------
    first_rows
        Where rows are asked for.
    image_files
        Where image files are checked.
    """

    first_rows: list[dict[str, Any]]
    image_files: ImageFilesKeys


class CsKeys(TypedDict):
    """Of a `.cs` file."""

    container: Literal["npy", "csdat"]


class CsgKeys(TypedDict):
    """Of a result group.

    Attributes
    ----------
    members
        Its files.
    slots
        Slot -> its file, as it is written.
    """

    members: list[str]
    slots: dict[str, str]


class BlockKeys(TypedDict):
    """A block of a STAR file."""

    rows: int
    is_loop: bool


class StarKeys(TypedDict):
    """Of a STAR file.

    Attributes
    ----------
    blocks
        Its blocks by name.
    main_block
        The one that is described.
    optics
        The rows of the optics groups.
    tomography
        What it holds of tomography, such as ``subtomograms``, which are not supported; null for single particles.
    """

    blocks: dict[str, BlockKeys]
    main_block: str
    optics: list[dict[str, Any]]
    tomography: str | None


# In this form since `is` is a word of Python.
HeaderKeys = TypedDict(
    "HeaderKeys",
    {
        "nx": int,
        "ny": int,
        "nz": int,
        "mode": int,
        "pixel_size_A": float | str | None,
        "ispg": int,
        "mz": int,
        "whole_sections": int | None,
        "is": str,
        "certain": bool,
        "reason": str,
    },
)


class MrcKeys(TypedDict):
    """Of an MRC file.

    Attributes
    ----------
    mrc
        Its header, and whether it is a stack, a volume or a micrograph, with the reason.
    """

    mrc: HeaderKeys


class PickleContentKeys(TypedDict):
    """What is in a pickle; ``refused`` for one that asks for code."""

    content: str


class NamesKeys(TypedDict, total=False):
    """Of a pickle that was refused: the names that it asks for."""

    names: list[str]


class PickleContent(PickleContentKeys, NamesKeys):
    """What is in a pickle.

    Attributes
    ----------
    content
        ``poses``, ``ctf`` …; ``refused`` for one that asks for code.
    names
        What a refused one asks for.
    """


class PickleKeys(TypedDict):
    """Of a pickle."""

    pickle: PickleContent


class ArrayKeys(TypedDict):
    """Of `.npy`, `.npz` and `.pt` files.

    Attributes
    ----------
    content
        What the arrays are.
    """

    content: Literal["arrays", "descriptor", "lens"]


class OutputKeys(TypedDict):
    """An output of a cryoSPARC job.

    Attributes
    ----------
    main
        The file with what the job computed; null where it has none.
    passthroughs
        The files with the other columns.
    num_items
        Rows, as the job says; null where it does not.
    excluded
        Whether it holds what the job left out.
    """

    name: str
    kind: str
    main: str | None
    passthroughs: list[str]
    num_items: int | None
    excluded: bool


class CryosparcJobKeys(TypedDict):
    """Of the folder of a cryoSPARC job."""

    outputs: list[OutputKeys]


class RelionJobFacts(TypedDict):
    """What a RELION job is; ``project`` is null where none was found."""

    kind: str
    status: str
    project: str | None


class IterationKeys(TypedDict):
    """The files of an iteration; null for those that are not there."""

    iteration: int | None
    continued_from: int | None
    data: str | None
    model: str | None
    optimiser: str | None
    volumes: list[str]


class RelionJobKeys(TypedDict):
    """Of the folder of a RELION job."""

    job: RelionJobFacts
    iterations: list[IterationKeys]


class RecovarKeys(TypedDict):
    """Of a RECOVAR result.

    Attributes
    ----------
    recovar
        As the page on RECOVAR explains it.
    """

    recovar: dict[str, Any]


class OwnOutputFacts(TypedDict):
    """An output folder of cryobridge.

    Attributes
    ----------
    stacks_planned
        How many stacks the job makes in all; null where its record does not say.
    series
        Content -> files.
    pick_files
        How many there are.
    """

    kind: str
    version: str
    status: str
    stacks_planned: int | None
    series: dict[str, list[str]]
    pick_files: int


class OwnOutputKeys(TypedDict):
    """Of an output folder of cryobridge."""

    output: OwnOutputFacts


class ListedJobKeys(TypedDict):
    """A job of a project.

    Attributes
    ----------
    name
        J42 or Class3D/job012.
    type, status
        As the program calls them; empty where nothing says.
    """

    path: str
    name: str
    type: str
    status: str
    title: str


class SubfolderKeys(TypedDict):
    """A folder in a folder.

    Attributes
    ----------
    kind
        Null for a folder with known files alone.
    """

    path: str
    kind: str | None


class ProjectKeys(TypedDict):
    """Of a project or another folder.

    Attributes
    ----------
    jobs
        Those with the highest numbers, 40 at most; null for a folder that is no project.
    n_jobs
        How many there are in all.
    folders
        Folders of which something is known.
    files
        Suffix -> number of files.
    next
        The command that shows more; null where none does.
    """

    jobs: list[ListedJobKeys] | None
    n_jobs: int | None
    folders: list[SubfolderKeys]
    files: dict[str, int]
    next: list[str] | None


# Kind -> what its JSON has besides `InspectionKeys`.
KEYS_OF_KIND: dict[str, tuple[type, ...]] = {
    registry.CS: (CsKeys, TableKeys),
    registry.CSG: (CsgKeys, TableKeys),
    registry.STAR: (StarKeys, TableKeys),
    registry.MRC: (MrcKeys,),
    registry.PICKLE: (PickleKeys,),
    registry.NPY: (ArrayKeys,),
    registry.NPZ: (ArrayKeys,),
    registry.PT: (ArrayKeys,),
    registry.LIST: (),
    folders.CRYOSPARC_JOB: (CryosparcJobKeys, TableKeys),
    folders.RELION_JOB: (RelionJobKeys,),
    folders.RECOVAR_RESULT: (RecovarKeys,),
    folders.OWN_OUTPUT: (OwnOutputKeys,),
    CRYOSPARC_PROJECT: (ProjectKeys,),
    RELION_PROJECT: (ProjectKeys,),
    FOLDER: (ProjectKeys,),
}
