"""`to_cryospax`: particles as a dataset of cryospax, for models of cryoJAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryobridge.adaptors.packages import loaded, tell
from cryobridge.adaptors.particle_values import ImageModelOptions, ParticleValues, StoredImages, chosen_particles
from cryobridge.options import made, takes

if TYPE_CHECKING:
    from cryobridge.adaptors.cryospax_classes import ParticleDataset
    from cryobridge.fourier.ctf import Rows
    from cryobridge.model.particles import ParticleSet


@takes(ImageModelOptions)
def to_cryospax(particles: ParticleSet, rows: Rows | None = None, **options: Any) -> ParticleDataset:
    """Return particles as a dataset of cryospax, of which cryoJAX makes RELION's images.

    cryospax's own reader takes the optics of the lowest group for a batch of several, gives the angle of the
    astigmatism as RELION does where cryoJAX counts it from y, and needs ``rlnPhaseShift``. Here each particle has its
    own optics, the angle is 90° less RELION's, the voltage gives cryoJAX RELION's wavelength, and with RELION's sign
    the phase shift is 180° more, since cryoJAX's CTF begins at the negative of the amplitude contrast.

    Parameters
    ----------
    particles
        With CTF and optics. Where no poses or shifts are known they are 0.
    rows
        (n,) which particles, from 0, in this order, or one truth value a particle; all if not given.
    **options
        The fields of `ImageModelOptions`.

    Returns
    -------
    ParticleDataset
        A `cryospax.AbstractParticleDataset` that is read: ``dataset[0:10]`` is a dictionary of ``images`` (10, box,
        box) float32, read from the stacks at that time, and ``parameters``: ``pose``, ``transfer_theory`` and
        ``image_config``. ``cryospax.get_in_axes(dataset)`` says what of it is of each particle. ``messages`` is what
        was done, and what has no place; warnings among them are Python's, too.

    Raises
    ------
    UsageError
        If cryospax is not installed, the boxes of the images differ, or an option is wrong.
    MissingDataError
        If the CTF, or an optics value, is not known; when images are read, if they are not there.
    FormatError
        If a value is not a number.
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import cryobridge as cb, cryospax, equinox
    >>> from cryobridge.adaptors import to_cryospax
    >>> dataset = to_cryospax(cb.read("J4"))
    >>> axes = (cryospax.get_in_axes(dataset),)
    >>> found = equinox.filter_vmap(my_loss, in_axes=axes)(dataset[:10])
    """
    chosen = made(ImageModelOptions, options)
    classes = loaded("cryobridge.adaptors.cryospax_classes", "cryospax")
    particles = chosen_particles(particles, rows)
    values = ParticleValues.of(particles, "cryoJAX")
    images = StoredImages.of(particles, values.box_px("cryospax"), chosen)
    dataset: ParticleDataset = classes.ParticleDataset(values, images, chosen)
    tell(dataset.messages)
    return dataset
