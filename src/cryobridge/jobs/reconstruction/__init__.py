"""Small maps of particles, by which poses, shifts and CTF are checked."""
