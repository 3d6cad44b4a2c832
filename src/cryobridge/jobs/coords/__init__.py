"""cryoSPARC picks -> RELION coordinates."""
