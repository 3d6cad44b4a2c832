"""Smaller stacks for RECOVAR and cryoDRGN, by Fourier cropping, with metadata that fit them."""
