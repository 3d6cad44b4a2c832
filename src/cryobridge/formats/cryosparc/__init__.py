"""cryoSPARC: `.cs` and `.csg` files, job folders, and the particle set they hold."""
