"""Datasets of cryospax that are made of a particle set; loaded where cryospax is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cryospax
import equinox
import jax
import numpy as np
from cryojax.ndimage import FourierConstant, FourierGaussian
from cryojax.simulator import AstigmaticCTF, BasicImageConfig, ContrastTransferTheory, EulerAnglePose

from cryobridge.adaptors.packages import SPENCE
from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.adaptors.particle_values import ImageModelOptions, ParticleValues, StoredImages
    from cryobridge.report import Message

# cryoJAX takes no B-factor of 0.
_LEAST_BFACTOR_A2 = 1e-9


class ParticleParameters(cryospax.AbstractParticleParameterFile):
    """Pose, CTF and image size of each particle as cryoJAX's objects, of NumPy arrays; they are read, not written.

    Parameters
    ----------
    values
        Of the particles.
    options
        What the model of the images is to be.
    """

    def __init__(self, values: ParticleValues, options: ImageModelOptions) -> None:
        self.source = values.particles.source
        self._shape = (values.box_px("cryospax"),) * 2
        self._n = len(values)
        config = np.stack([values.of_each("pixel_size_A"), values.voltage_kV(SPENCE)])
        # As in cryospax where one serves all.
        self.has_one_config = bool((config == config[:, :1]).all())
        ctf, own_sign_deg = values.ctf, 180.0 if options.sign == "relion" else 0.0
        angles_deg = values.angles_deg
        self._columns: dict[str, NDArray[Any]] = {
            "pixel_size": config[0],
            "voltage": config[1],
            "defocus": (ctf.defocus_u_A + ctf.defocus_v_A) / 2,
            "astigmatism": ctf.defocus_u_A - ctf.defocus_v_A,
            "angle": 90.0 - np.degrees(ctf.defocus_angle_rad),  # cryoJAX counts it from y towards x
            "aberration": values.of_each("spherical_aberration_mm"),
            "contrast": values.of_each("amplitude_contrast"),
            "phase_shift": np.degrees(values.phase_shift_rad) + own_sign_deg,
            "offset": -values.shift_A,
            "euler": np.zeros((self._n, 3)) if angles_deg is None else -angles_deg,
        }
        envelope = values.envelope() if options.envelope else None
        if envelope is not None:
            bfactor_A2, self._columns["scale"] = envelope
            if (bfactor_A2 < 0).any():
                raise UsageError(
                    "a B-factor is negative, which cryoJAX does not take",
                    path=self.source,
                    hint="Leave them out with envelope=False.",
                )
            if bfactor_A2.any():
                self._columns["bfactor"] = np.maximum(bfactor_A2, _LEAST_BFACTOR_A2)

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """Return ``image_config``, ``pose`` and ``transfer_theory`` of a row, of a slice, or of an array of rows."""
        dtype = jax.dtypes.canonicalize_dtype(float)
        of = {name: np.asarray(column[index], dtype) for name, column in self._columns.items()}
        if self.has_one_config:
            of |= {name: np.asarray(self._columns[name][0], dtype) for name in ("pixel_size", "voltage")}
        config = equinox.tree_at(
            lambda made: (made.pixel_size, made.voltage_in_kilovolts),
            BasicImageConfig(self._shape, 1.0, 1.0),
            (of["pixel_size"], of["voltage"]),
        )
        pose = equinox.tree_at(
            lambda made: (made.offset_in_angstroms, made.phi_angle, made.theta_angle, made.psi_angle),
            EulerAnglePose(),
            (of["offset"], *np.moveaxis(of["euler"], -1, 0)),
        )
        ctf = equinox.tree_at(
            lambda made: (
                made.defocus_in_angstroms,
                made.astigmatism_in_angstroms,
                made.astigmatism_angle,
                made.spherical_aberration_in_mm,
            ),
            AstigmaticCTF(),
            (of["defocus"], of["astigmatism"], of["angle"], of["aberration"]),
        )
        theory = equinox.tree_at(
            lambda made: (made.amplitude_contrast_ratio, made.phase_shift),
            ContrastTransferTheory(ctf, envelope=_envelope(of)),
            (of["contrast"], of["phase_shift"]),
        )
        return {"image_config": config, "pose": pose, "transfer_theory": theory}

    @property
    def mode(self) -> str:
        """As cryospax says of what is read."""
        return "r"

    def __setitem__(self, index: Any, value: Any) -> None:
        """Refuse to change particles; raises `UsageError`."""
        raise _is_read()

    def append(self, value: Any) -> None:
        """Refuse to add particles; raises `UsageError`."""
        raise _is_read()

    def save(self) -> None:
        """Refuse to write; raises `UsageError`."""
        raise _is_read()

    @property
    def path_to_output(self) -> Path:
        """The file that the particles were read from."""
        return self.source

    @path_to_output.setter
    def path_to_output(self, value: Any) -> None:
        raise _is_read()


class ParticleDataset(cryospax.AbstractParticleDataset):
    """Images with their parameters; images are read from their stacks when they are asked for.

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
        self._parameters = ParticleParameters(values, options)
        self._images = images
        self._only_images = False
        self.messages: tuple[Message, ...] = values.messages

    def __len__(self) -> int:
        return len(self._parameters)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """Return ``images`` and ``parameters`` of a row, of a slice, or of an array of rows."""
        rows = np.arange(len(self))[index]
        images = self._images.read(np.atleast_1d(rows))
        found: dict[str, Any] = {"images": images if np.ndim(rows) else images[0]}
        return found if self._only_images else found | {"parameters": self._parameters[index]}

    @property
    def parameter_file(self) -> ParticleParameters:
        """The parameters without images."""
        return self._parameters

    @property
    def mode(self) -> str:
        """As cryospax says of what is read."""
        return "r"

    @property
    def only_images(self) -> bool:
        """Whether items have no parameters."""
        return self._only_images

    @only_images.setter
    def only_images(self, value: bool) -> None:
        self._only_images = value

    def __setitem__(self, index: Any, value: Any) -> None:
        """Refuse to change particles; raises `UsageError`."""
        raise _is_read()

    def append(self, value: Any) -> None:
        """Refuse to add particles; raises `UsageError`."""
        raise _is_read()

    def write_images(self, index_array: Any, images: Any, parameters: Any = None) -> None:
        """Refuse to write images; raises `UsageError`."""
        raise _is_read()


def _envelope(of: dict[str, NDArray[Any]]) -> Any:
    if "bfactor" in of:
        return equinox.tree_at(
            lambda made: (made.amplitude, made.b_factor), FourierGaussian(), (of["scale"], of["bfactor"])
        )
    return None if "scale" not in of else equinox.tree_at(lambda made: made.value, FourierConstant(1.0), of["scale"])


def _is_read() -> UsageError:
    return UsageError(
        "these particles are read, not written", hint="Write them with cryobridge.write, then open them with cryospax."
    )


def _axis(leaf: Any) -> int | None:
    return 0 if equinox.is_array_like(leaf) and np.ndim(leaf) == 1 else None


def _parameters_in_axes(parameters: ParticleParameters) -> dict[str, Any]:
    each = equinox.if_array(0)
    return {"pose": each, "transfer_theory": each, "image_config": None if parameters.has_one_config else _axis}


def _dataset_in_axes(dataset: ParticleDataset) -> dict[str, Any]:
    each = {"images": equinox.if_array(0)}
    return each if dataset.only_images else each | {"parameters": _parameters_in_axes(dataset.parameter_file)}


cryospax.get_in_axes.register(ParticleParameters, _parameters_in_axes)
cryospax.get_in_axes.register(ParticleDataset, _dataset_in_axes)
