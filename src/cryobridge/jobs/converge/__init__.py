"""Class convergence of RELION jobs, and of cryoSPARC jobs that kept their iterations."""
