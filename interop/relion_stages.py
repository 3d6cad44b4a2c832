"""The stages of `make interop` with RELION; ``make test`` runs the short ones where RELION is installed."""

from interop import convergence, extraction, motion, polishing, reconstructions

SHORT = (*reconstructions.STAGES, *extraction.STAGES, *motion.STAGES, *convergence.STAGES)
LONG = (*polishing.STAGES, *convergence.LONG_STAGES)
