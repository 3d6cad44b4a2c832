"""cryobridge carries cryo-EM particles between cryoSPARC, RELION, CryoLike and RECOVAR/cryoDRGN."""

__version__ = "0.1.0"
