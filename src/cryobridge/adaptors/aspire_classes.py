"""An image source of ASPIRE that is made of a particle set; loaded where ASPIRE is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from aspire.image import Image
from aspire.operators import CTFFilter
from aspire.source import ImageSource

from cryobridge.adaptors.image_source import aspire_filters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.adaptors.particle_values import ImageModelOptions, ParticleValues, StoredImages
    from cryobridge.report import Message


class SignedCTFFilter(CTFFilter):
    """ASPIRE's CTF, or its negative.

    Parameters
    ----------
    factor
        1 or -1.
    **values
        As ASPIRE's has them.
    """

    def __init__(self, factor: float, **values: Any) -> None:
        super().__init__(**values)
        self.factor = factor

    def scale(self, _factor: float = 1) -> SignedCTFFilter:
        """Return the filter of smaller images, which is the same: it is given their pixel size when it is evaluated.

        `ImageSource.downsample` of ASPIRE 0.14.3 scales filters besides, so that its own are scaled twice.
        """
        return self

    def _evaluate(self, omega: Any, **keywords: Any) -> Any:
        return self.factor * super()._evaluate(omega, **keywords)


class ParticleSource(ImageSource):
    """Particles with their images, which are read from their stacks when they are asked for.

    Parameters
    ----------
    values, images
        Of the particles.
    options
        What the model of the images is to be.

    Attributes
    ----------
    messages
        What was done with aberrations, and what has no place.
    """

    def __init__(self, values: ParticleValues, images: StoredImages, options: ImageModelOptions) -> None:
        self.messages: tuple[Message, ...] = values.messages
        self._stored = images
        super().__init__(
            L=values.box_px("ASPIRE"),
            n=len(values),
            dtype=np.float32,
            metadata=_metadata(values, options),
            pixel_size=values.pixel_size_A("ASPIRE"),
        )
        names = ("voltage", "defocus_u", "defocus_v", "defocus_ang", "Cs", "alpha", "B")
        filters, index = aspire_filters(values, options)
        self.unique_filters = [
            SignedCTFFilter(factor, **dict(zip(names, numbers, strict=True))) for *numbers, factor in filters.tolist()
        ]
        self.filter_indices = index
        self._mutable = False

    def __str__(self) -> str:
        return f"ParticleSource ({self.n} images of size {self.L}x{self.L})"

    def _images(self, indices: NDArray[np.int64]) -> Any:
        """Return images as ASPIRE asks a source for them: raw ones, gone through its pipeline."""
        if self._cached_im is None:
            raw = Image(self._stored.read(indices).astype(self.dtype, copy=False), pixel_size=self.pixel_size)
        else:
            raw = self._cached_im[indices, :, :]
        return self.generation_pipeline.forward(raw, indices)


def _metadata(values: ParticleValues, options: ImageModelOptions) -> dict[str, Any]:
    """Return RELION's columns as ASPIRE has them, also to write them."""
    ctf, angles_deg = values.ctf, values.angles_deg
    found: dict[str, Any] = {
        "_rlnVoltage": values.of_each("voltage_kV"),
        "_rlnSphericalAberration": values.of_each("spherical_aberration_mm"),
        "_rlnAmplitudeContrast": values.of_each("amplitude_contrast"),
        "_rlnDefocusU": ctf.defocus_u_A,
        "_rlnDefocusV": ctf.defocus_v_A,
        "_rlnDefocusAngle": np.degrees(ctf.defocus_angle_rad),
        "_rlnPhaseShift": np.degrees(values.phase_shift_rad),
        "_rlnOriginXAngst": values.shift_A[:, 0],
        "_rlnOriginYAngst": values.shift_A[:, 1],
    }
    if angles_deg is not None:
        found |= dict(zip(("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"), angles_deg.T, strict=True))
    if values.particles.class_number is not None:
        found["_rlnClassNumber"] = values.particles.class_number
    if values.particles.half_set is not None:
        found["_rlnRandomSubset"] = values.particles.half_set
    envelope = values.envelope() if options.envelope else None
    if envelope is not None:
        found["_aspireAmplitude"] = envelope[1]
    return found
