"""What can be asked of `cryobridge converge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cryobridge.errors import UsageError, option
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt

if TYPE_CHECKING:
    from cryobridge.jobs.converge.verdict import Rule

_ITERATIONS, _VERDICT, _OUTPUT, _PARTICLES = "Iterations", "Verdict", "Output", "Volatile particles"


@dataclass(frozen=True, kw_only=True)
class ConvergeOptions(Options):
    """Which iterations are read, what counts as converged, and what is written; None for what is not.

    Raises
    ------
    UsageError
        If a value is of another type or out of bounds, or two contradict each other.

    Examples
    --------
    >>> ConvergeOptions(threshold_percent=0.5, stable=5, plots=False).last_iteration is None
    True
    """

    iterations: Annotated[
        int | None, Opt("Read the iterations up to this one.", metavar="N", low=0, panel=_ITERATIONS)
    ] = None
    total: Annotated[
        int | None,
        Opt("Of a job that was continued: read up to this iteration.", metavar="N", low=0, panel=_ITERATIONS),
    ] = None
    threshold_percent: Annotated[
        float,
        Opt(
            "Converged means: fewer particles than this change class from one iteration to the next.",
            metavar="PERCENT",
            panel=_VERDICT,
        ),
    ] = 1.0
    stable: Annotated[
        int,
        Opt("Converged means: so in this many iterations, one after the other.", metavar="N", low=1, panel=_VERDICT),
    ] = 3
    plots: Annotated[
        bool, Opt("Draw pictures of populations, flow and metrics.", flags=("--plots/--no-plots",), panel=_OUTPUT)
    ] = True
    each_iteration: Annotated[
        bool,
        Opt("Draw a picture of each iteration, as is done anyway up to a given one and while watching.", panel=_OUTPUT),
    ] = False
    legacy_names: Annotated[
        bool, Opt("Draw them with reliosparc's names, such as converge_012.png.", panel=_OUTPUT)
    ] = False
    html: Annotated[
        Path | None, Opt("Write a web page with all pictures and tables.", metavar="FILE", panel=_OUTPUT)
    ] = None
    volatile: Annotated[
        Path | None,
        Opt("Write the particles that change class again and again.", metavar="FILE.star", panel=_PARTICLES),
    ] = None
    settled: Annotated[Path | None, Opt("Write all other particles.", metavar="FILE.star", panel=_PARTICLES)] = None
    volatile_last: Annotated[
        int,
        Opt("Number of last iterations in which changes of class are counted.", metavar="K", low=1, panel=_PARTICLES),
    ] = 5
    volatile_min: Annotated[
        int, Opt("Changes of class in these that make a particle volatile.", metavar="M", low=1, panel=_PARTICLES)
    ] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold_percent <= 100:
            raise UsageError(
                f"{option('threshold_percent', f'{self.threshold_percent:g}')}: between 0 and 100 % is needed",
                hint="Give a small number, such as 0.5.",
            )
        if self.iterations is not None and self.total is not None and self.total < self.iterations:
            raise UsageError(
                f"{option('total', self.total)} is before {option('iterations', self.iterations)}",
                hint=f"{option('total')} is the last iteration of all, that of the continued run included.",
            )
        if self.each_iteration and not self.plots:
            raise UsageError(
                f"{option('each_iteration', True)} asks for pictures, {option('plots', 'False')} for none",
                hint="Give one of the two.",
            )
        for name in ("volatile", "settled"):
            path = getattr(self, name)
            if path is not None and path.suffix.lower() != ".star":
                raise UsageError(
                    f"{option(name, path)}: a STAR file is written, and its name does not end in .star",
                    hint=f"Give {option(name, path.with_suffix('.star'))}.",
                )
        if self.volatile_min > self.volatile_last:
            raise UsageError(
                f"{option('volatile_min', self.volatile_min)}: a particle can't jump so often in "
                f"{self.volatile_last} steps",
                hint=f"Give a larger {option('volatile_last')}.",
            )

    @property
    def last_iteration(self) -> int | None:
        """The last iteration to read; reliosparc asked for that of the first run and that of the continued one."""
        return self.iterations if self.total is None else self.total

    @property
    def draws_each(self) -> bool:
        """Whether each iteration has a picture; reliosparc, which was given the last one, drew them."""
        return self.each_iteration or self.legacy_names or self.last_iteration is not None

    @property
    def rule(self) -> Rule:
        """What counts as converged."""
        from cryobridge.jobs.converge.verdict import Rule

        return Rule(self.threshold_percent / 100, self.stable)

    @property
    def named_outputs(self) -> tuple[Path, ...]:
        """The files that the user named, which are not replaced without asking."""
        return tuple(path for path in (self.html, self.volatile, self.settled) if path is not None)
