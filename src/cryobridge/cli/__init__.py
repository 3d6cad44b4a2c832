"""The command line: thin commands over the jobs; the only package that imports Rich."""
