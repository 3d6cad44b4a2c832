"""Particle images and their metadata -> Fourier-polar stacks, as CryoLike reads them."""
