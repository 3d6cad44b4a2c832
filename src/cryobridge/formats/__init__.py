"""Files: bytes <-> tables <-> particle sets, one module a format and one a folder layout."""
