"""Several particle files of one program as one: their rows one after another."""

from cryobridge.formats.merged.files import MergedFiles, check_rows, found_from, merged_files, names_of

__all__ = ["MergedFiles", "check_rows", "found_from", "merged_files", "names_of"]
