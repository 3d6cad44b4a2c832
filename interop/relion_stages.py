"""The stages of `make interop` with RELION; ``make test`` runs the short ones where RELION is installed."""

from interop import convergence, extraction, motion, reconstructions

SHORT = (*reconstructions.STAGES, *extraction.STAGES, *motion.STAGES, *convergence.STAGES)
LONG = (*convergence.LONG_STAGES,)
