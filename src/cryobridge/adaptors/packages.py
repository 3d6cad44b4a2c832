"""The packages that there are adaptors for: loading one that may be absent, and the wavelength that it computes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import constants

from cryobridge.errors import UsageError
from cryobridge.model.contrast_transfer import wavelength_A

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.model.particles import Floats
    from cryobridge.report import Message


def loaded(module: str, package: str) -> Any:
    """Import a package that cryobridge does without, or one of our modules that needs it.

    Parameters
    ----------
    module
        Its name.
    package
        What pip installs it by.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        # A module of ours that is not there, or of the package itself, is another fault.
        if error.name is None or error.name.partition(".")[0] == "cryobridge":
            raise
        what = "" if error.name == module or module.startswith("cryobridge.") else f" ({error.name} is not there)"
        raise UsageError(f"{package} is not installed{what}", hint=f"Run pip install {package}.") from error


def tell(messages: Iterable[Message], stacklevel: int = 3) -> None:
    """Give the warnings among messages as Python's, at the line that called the adaptor which calls this."""
    for message in messages:
        if message.severity == "warning":
            warnings.warn(str(message), stacklevel=stacklevel)


@dataclass(frozen=True)
class WavelengthFormula:
    """a / √(V (1 + b V)) for V volts, by which a package takes a voltage for a wavelength in Å.

    Parameters
    ----------
    a, b
        In Å √V and 1/V.
    """

    a: float
    b: float

    def wavelength_A(self, voltage_kV: Floats) -> Floats:
        """Return the wavelength that the package computes."""
        volts = 1e3 * voltage_kV
        found: Floats = self.a / np.sqrt(volts * (1.0 + self.b * volts))
        return found

    def voltage_kV(self, voltage_kV: Floats) -> Floats:
        """Return the voltage by which the package has the wavelength that RELION has at a voltage.

        Examples
        --------
        >>> float(CODATA.voltage_kV(np.array([300.0])).round(6)[0])
        299.996863
        """
        square = (self.a / wavelength_A(voltage_kV)) ** 2
        # The positive solution of V + b V² = (a / λ)², in the form that loses no digits.
        volts: Floats = 2.0 * square / (1.0 + np.sqrt(1.0 + 4.0 * self.b * square))
        return volts / 1e3


_CHARGE, _MASS = constants.elementary_charge, constants.electron_mass
# h c / √(eV (2 m c² + eV)), as torch-ctf has it.
CODATA = WavelengthFormula(
    1e10 * constants.Planck / np.sqrt(2 * _MASS * _CHARGE), _CHARGE / (2 * _MASS * constants.speed_of_light**2)
)
# Of Spence's book, as cryoJAX, ASPIRE and cryoDRGN have it.
SPENCE = WavelengthFormula(12.2639, 0.97845e-6)
RECOVAR = WavelengthFormula(12.2642598, 9.78475598e-7)
