"""`to_aspire`: particles as an image source of ASPIRE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.adaptors.packages import loaded, tell
from cryobridge.adaptors.particle_values import ImageModelOptions, ParticleValues, StoredImages, chosen_particles
from cryobridge.options import made, takes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.adaptors.aspire_classes import ParticleSource
    from cryobridge.fourier.ctf import Rows
    from cryobridge.model.particles import ParticleSet


@takes(ImageModelOptions)
def to_aspire(particles: ParticleSet, rows: Rows | None = None, **options: Any) -> ParticleSource:
    """Return particles as an image source of ASPIRE, whose CTF filters are RELION's CTF.

    ASPIRE's own reader ignores ``rlnPhaseShift`` and takes the first pixel size for all. Here the phase shift is in
    the amplitude contrast, alpha = sin(phase shift + asin w), with the sign of the filter reversed where that angle is
    above 90°; the voltage gives ASPIRE RELION's wavelength. With RELION's sign, filters are the negative of ASPIRE's
    own, which begin at the negative of alpha.

    Parameters
    ----------
    particles
        With CTF and optics, images of one box and pixel size.
    rows
        (n,) which particles, from 0, in this order, or one truth value a particle; all if not given.
    **options
        The fields of `ImageModelOptions`.

    Returns
    -------
    ParticleSource
        An `aspire.source.ImageSource`: ``images`` are read from the stacks when they are asked for; ``angles`` in
        radians, ``offsets`` in pixels, ``unique_filters`` and ``filter_indices``, and ``amplitudes``, the scale of the
        CTF. ``messages`` is what was done, and what has no place; warnings among them are Python's, too.

    Raises
    ------
    UsageError
        If ASPIRE is not installed, boxes or pixel sizes of the images differ, or an option is wrong.
    MissingDataError
        If the CTF, or an optics value, is not known; when images are read, if they are not there.
    FormatError
        If a value is not a number.
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.adaptors import to_aspire
    >>> source = to_aspire(cb.read("J4"))
    >>> flipped = source.phase_flip()
    """
    chosen = made(ImageModelOptions, options)
    classes = loaded("cryobridge.adaptors.aspire_classes", "aspire")
    particles = chosen_particles(particles, rows)
    values = ParticleValues.of(particles, "ASPIRE")
    images = StoredImages.of(particles, values.box_px("ASPIRE"), chosen)
    source: ParticleSource = classes.ParticleSource(values, images, chosen)
    tell(source.messages)
    return source


def aspire_filters(values: ParticleValues, options: ImageModelOptions) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what ASPIRE's CTF filters are made of.

    Parameters
    ----------
    values
        Of n particles.
    options
        Which sign, and whether the B-factor counts.

    Returns
    -------
    filters
        (f, 8) the distinct ones: voltage in kV, U and V in Å, angle in rad, Cs in mm, alpha, B and the sign that
        ASPIRE's CTF is multiplied by.
    index
        (n,) that of each particle.
    """
    from cryobridge.adaptors.packages import SPENCE

    total = values.phase_shift_rad + np.arcsin(values.of_each("amplitude_contrast"))
    # ASPIRE has cos of that angle as a square root, which is positive.
    sign = np.where(np.cos(total) < 0, -1.0, 1.0)
    envelope = values.envelope() if options.envelope else None
    # Of exp(-B s²), s in 1/nm.
    bfactor_nm2 = np.zeros(len(values)) if envelope is None else envelope[0] / 4 / 100
    ctf = values.ctf
    columns = np.column_stack(
        [
            values.voltage_kV(SPENCE),
            ctf.defocus_u_A,
            ctf.defocus_v_A,
            ctf.defocus_angle_rad,
            values.of_each("spherical_aberration_mm"),
            np.sin(total) * sign,
            bfactor_nm2,
            -sign if options.sign == "relion" else sign,
        ]
    )
    filters, index = np.unique(columns, axis=0, return_inverse=True)
    return filters, index.ravel()
