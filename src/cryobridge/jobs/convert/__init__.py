"""Whole particle sets from one program's files to another's."""
