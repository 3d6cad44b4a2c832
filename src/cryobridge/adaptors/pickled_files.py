"""`to_cryodrgn` and `to_recovar`: particles as a stack with poses.pkl and ctf.pkl."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from cryobridge.adaptors.packages import RECOVAR, SPENCE, tell
from cryobridge.adaptors.particle_values import ParticleValues, PixelSourceOptions, StoredImages, chosen_particles
from cryobridge.formats.mrc_write import MrcStackWriter
from cryobridge.formats.particles_pickle import pickle_content, write_pickles
from cryobridge.jobs.output_folder import refuse_existing, refuse_inputs, whole_files
from cryobridge.options import Opt, as_path, made, takes
from cryobridge.report import Report, distinct, note, warning

if TYPE_CHECKING:
    import os

    from cryobridge.adaptors.packages import WavelengthFormula
    from cryobridge.fourier.ctf import Rows
    from cryobridge.model.particles import ParticleSet
    from cryobridge.report import Message


STACK = "particles.mrcs"
_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class PickledOptions(PixelSourceOptions):
    """Where images are, how particles look in them, and which voltage is written."""

    wavelength: Annotated[
        Literal["relion", "own"],
        Opt("Whether ctf.pkl has the voltage by which the program computes RELION's wavelength, or the microscope's."),
    ] = "relion"


@takes(PickledOptions)
def to_cryodrgn(
    particles: ParticleSet,
    folder: str | os.PathLike[str],
    rows: Rows | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Report:
    """Write particles for cryoDRGN: one stack, poses.pkl and ctf.pkl, as ``cryodrgn train_vae`` takes them.

    The pickles are those of `cryobridge.convert`, with a voltage by which cryoDRGN has RELION's wavelength: 299.983973
    kV for 300. Its CTF has the opposite sign, and it multiplies bright images by -1 unless told ``--uninvert-data``.

    Parameters
    ----------
    particles
        With poses, CTF, optics and images; images of one box and pixel size.
    folder
        Where ``particles.mrcs``, ``poses.pkl`` and ``ctf.pkl`` are written.
    rows
        (n,) which particles, from 0, in this order, or one truth value a particle; all if not given.
    overwrite
        Replace files that are there.
    **options
        The fields of `PickledOptions`.

    Returns
    -------
    Report
        Its ``outputs`` are the files, the stack first. Warnings among its messages are Python's, too.

    Raises
    ------
    UsageError
        If boxes or pixel sizes of the images differ, an output is an input, or an option is wrong.
    MissingDataError
        If CTF, optics, or an image is not known or not there.
    FormatError
        If a value is not a number.
    OutputExistsError
        If an output is there and may not be replaced.
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.adaptors import to_cryodrgn
    >>> stack, poses, ctf = to_cryodrgn(cb.read("J4"), "for_cryodrgn").outputs
    """
    return _written(particles, as_path(folder, "folder"), rows, overwrite, made(PickledOptions, options), _CRYODRGN)


@takes(PickledOptions)
def to_recovar(
    particles: ParticleSet,
    folder: str | os.PathLike[str],
    rows: Rows | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Report:
    """Write particles for RECOVAR: one stack, poses.pkl and ctf.pkl, as ``recovar pipeline`` takes them.

    As `to_cryodrgn`, with another voltage, since RECOVAR's wavelength is another one: 299.996865 kV for 300.

    Parameters
    ----------
    particles, folder, rows, overwrite, **options
        As there.

    Returns
    -------
    Report
        Its ``outputs`` are the files, the stack first. Warnings among its messages are Python's, too.

    Raises
    ------
    CryobridgeError, IndexError
        As there.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.adaptors import to_recovar
    >>> stack, poses, ctf = to_recovar(cb.read("J4"), "for_recovar").outputs
    """
    return _written(particles, as_path(folder, "folder"), rows, overwrite, made(PickledOptions, options), _RECOVAR)


@dataclass(frozen=True)
class _Program:
    name: str
    formula: WavelengthFormula


_CRYODRGN = _Program("cryoDRGN", SPENCE)
_RECOVAR = _Program("RECOVAR", RECOVAR)


def _written(
    particles: ParticleSet, folder: Any, rows: Rows | None, overwrite: bool, options: PickledOptions, program: _Program
) -> Report:
    chosen = chosen_particles(particles, rows)
    n_all, particles = len(particles), chosen
    values = ParticleValues.of(particles, program.name)
    pixel_size_A = values.pixel_size_A(program.name)
    put, messages = values.particles, [*values.messages]
    if options.wavelength == "relion":
        nominal_kV = values.optics.voltage_kV
        matched_kV = program.formula.voltage_kV(nominal_kV)
        put = replace(put, optics=replace(values.optics, voltage_kV=matched_kV))
        said = f"ctf.pkl says {matched_kV[0]:.6f} kV for {nominal_kV[0]:g}"
        text = f"{said}, by which {program.name} has RELION's wavelength"
        messages.append(note("voltage-matched", text))
    content = pickle_content(put)
    codes = {message.code for message in messages}
    messages += [message for message in content.messages if message.code not in codes]  # these name both programs
    messages += _about_envelope(values, program.name)
    box_px = values.box_px(program.name)
    images = StoredImages.of(particles, box_px, options)
    outputs = tuple(folder / name for name in (STACK, *content.names))
    refuse_inputs(outputs, [header.path for header in images.headers.values()], name="folder")
    refuse_existing(outputs, overwrite=overwrite)
    n = len(particles)
    with whole_files(outputs, overwrite=overwrite):
        with MrcStackWriter(folder / STACK, (box_px, box_px), pixel_size_A, n_images=n) as stack:
            for first in range(0, n, _AT_ONCE):
                stack.append(images.read(np.arange(first, min(first + _AT_ONCE, n))))
        write_pickles(folder, content)
    found = distinct(messages)
    tell(found, 4)  # one call further in
    left_out = {"not among the rows that were asked for": n_all - n} if n < n_all else {}
    return Report(rows_in=n_all, rows_out=n, left_out=left_out, messages=found, outputs=outputs)


def _about_envelope(values: ParticleValues, who: str) -> list[Message]:
    if values.envelope() is None:
        return []
    return [warning("envelope-left-out", f"B-factors and scales of the CTF are left out: {who} has no place for them")]
