"""Micrographs, movies and motion of one program as files of the other."""
