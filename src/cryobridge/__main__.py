"""``python -m cryobridge``."""

from cryobridge.cli.app import main

if __name__ == "__main__":
    main()
