"""RELION's micrographs beside cryoSPARC's: names, files, sizes and orientation, for the jobs that write coordinates."""
