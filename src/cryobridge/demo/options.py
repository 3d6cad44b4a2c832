"""What can be asked of `cryobridge demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryobridge.errors import UsageError
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """How much is simulated; the same options give the same data.

    Raises
    ------
    UsageError
        If a value is of another type or out of bounds.

    Examples
    --------
    >>> DemoOptions(seed=7, snr=1)
    DemoOptions(seed=7, n_micrographs=6, particles_per_micrograph=50, snr=1.0)
    """

    seed: Annotated[
        int, Opt("Seed of the random numbers; other seeds give other data.", metavar="N", low=0, panel="Simulation")
    ] = 0
    # For Python; the commands of the tour are made for the defaults.
    n_micrographs: Annotated[int, Opt("Some 10 MB each.", metavar="N", low=1, is_hidden=True)] = 6
    particles_per_micrograph: Annotated[int, Opt("On each of them.", metavar="N", low=1, is_hidden=True)] = 50
    snr: Annotated[float, Opt("Variance of the signal by that of the noise.", metavar="X", is_hidden=True)] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.snr <= 0:
            raise UsageError(f"{self.snr:g} is out of range", option="snr", hint="Give a number above 0.")
