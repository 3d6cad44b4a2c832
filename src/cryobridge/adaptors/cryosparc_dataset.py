"""`from_cryosparc_tools` and `to_cryosparc_tools`: datasets of cryosparc-tools in memory and particle sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.adaptors.packages import loaded, tell
from cryobridge.errors import UsageError
from cryobridge.formats.cryosparc.particles_write import cs_content
from cryobridge.formats.optics import KnownOptics
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.formats.results import result_columns, results_of
from cryobridge.formats.table import TableInMemory
from cryobridge.model.particles import Labels
from cryobridge.options import as_path, checked, made

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cryobridge.formats.contrast import Contrast
    from cryobridge.formats.table import Values
    from cryobridge.model.particles import ParticleSet


def from_cryosparc_tools(
    dataset: Any,
    project: str | os.PathLike[str] = ".",
    *,
    pose: str | None = None,
    defaults: Mapping[str, float] | None = None,
) -> ParticleSet:
    """Return the particles of a `cryosparc.dataset.Dataset`, without files in between.

    Parameters
    ----------
    dataset
        Such as ``job.load_output("particles")``. Its columns are copied.
    project
        The folder of the cryoSPARC project, from which the names of image files start.
    pose
        The alignment that poses are read from, such as ``alignments3D``; the first if not given.
    defaults
        Optics values for datasets that lack them, such as ``{"voltage_kV": 300}``.

    Returns
    -------
    ParticleSet
        With all columns; unchanged ones return from `to_cryosparc_tools`, and go to `.cs` files, as they were.

    Raises
    ------
    UsageError
        If it is no dataset, or there is no such alignment.
    FormatError
        If a column is of a type or shape that cryoSPARC does not have.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.adaptors import from_cryosparc_tools
    >>> dataset = cryosparc.find_job("P3", "J42").load_output("particles")
    >>> particles = from_cryosparc_tools(dataset, project.dir)
    >>> report = cb.write(particles, "particles.star")
    """
    known = made(KnownOptics, checked(defaults or {}, dict, "defaults"))
    try:
        columns = {name: _copied(dataset[name]) for name in dataset.fields()}
    except (AttributeError, TypeError) as error:
        raise UsageError(
            f"a Dataset of cryosparc-tools is needed, not {type(dataset).__name__}",
            option="dataset",
            hint="job.load_output('particles') returns one; cryobridge.read takes files.",
        ) from error
    path = as_path(project, "project") / "dataset.cs"
    table = TableInMemory.of(path, columns)
    files = ParticleFiles(
        path=path,
        program="cryosparc",
        files=(path,),
        members=((table, None),),
        table=table,
        n_rows=table.n_rows,
        pose=pose,
        defaults=known,
    )
    return files.particles


def to_cryosparc_tools(particles: ParticleSet, *, contrast: Contrast | None = None) -> Any:
    """Return particles as a `cryosparc.dataset.Dataset`, such as ``project.save_external_result`` takes.

    Parameters
    ----------
    particles
        Those that were read from cryoSPARC, or some of them, keep all columns as they are, with results that they were
        given since (`ParticleSet.with_columns`); others go through the model, as to a `.cs` file.
    contrast
        How the particles look in the images, for sets without it (`blob/sign`); bright if not given.

    Returns
    -------
    cryosparc.dataset.Dataset
        With ``uid`` first.

    Raises
    ------
    UsageError
        If cryosparc-tools is not installed, or the contrast is given for particles that have it.
    MissingDataError
        If there are no images, or an optics value is not known that cryoSPARC needs.
    FormatError
        If a pose, shift, CTF value or coordinate is not a number.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.adaptors import to_cryosparc_tools
    >>> dataset = to_cryosparc_tools(cb.read("particles.star"))
    >>> project.save_external_result("W1", dataset, type="particle", name="particles")
    """
    package = loaded("cryosparc.dataset", "cryosparc-tools")
    origin = particles.origin
    columns: dict[str, Values]
    if origin is not None and origin.files.program == "cryosparc" and contrast is None:
        table = origin.files.columns
        results, replaced = result_columns(results_of(particles), origin.files)
        read = table.read([name for name in table.names if name not in replaced])
        columns = {name: values if origin.rows is None else _take(values, origin.rows) for name, values in read.items()}
        columns |= results
    else:
        content = cs_content(particles, contrast=contrast)
        tell(content.messages)
        columns = content.columns
    first = {"uid": columns["uid"]} if "uid" in columns else {}
    return package.Dataset(
        {
            name: values.to_numpy() if isinstance(values, Labels) else values
            for name, values in (first | columns).items()
        }
    )


def _take(values: Values, rows: Any) -> Values:
    return values.take(rows) if isinstance(values, Labels) else values[rows]


def _copied(column: Any) -> Values:
    """Return a column of a dataset, whose texts are objects; cryosparc-tools would change or free the original."""
    values: NDArray[Any] = np.array(column, subok=False)
    if values.dtype.kind not in "OSU":
        return values
    return Labels.of(text.decode() if isinstance(text, bytes) else text for text in values.tolist())
