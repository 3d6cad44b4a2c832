"""RELION: STAR files, job folders, and the particle set they hold."""
