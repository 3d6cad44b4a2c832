"""Particle files of one program put together as one."""
