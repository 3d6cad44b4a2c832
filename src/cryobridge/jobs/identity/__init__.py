"""Which rows of two particle files are the same particle, for the jobs that bring files together."""
