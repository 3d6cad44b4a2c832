"""What a file or folder holds and what it can be used for."""
