"""The stages of `make interop` with RELION; ``make test`` runs the short ones where RELION is installed."""

from interop import convergence, extraction, reconstructions

SHORT = (*reconstructions.STAGES, *extraction.STAGES, *convergence.STAGES)
LONG = (*convergence.LONG_STAGES,)
