"""Subsets of particle files, chosen by rows, classes, identities or values."""
