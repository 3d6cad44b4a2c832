"""Fuzzing of every reader: `make fuzz`, or ``python -m fuzz --help`` with tests/ on the path."""
