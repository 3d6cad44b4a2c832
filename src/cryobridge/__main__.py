"""``python -m cryobridge``, and the command ``cryobridge``."""

import sys

from cryobridge.cli.interrupts import exit_at_once


def main() -> None:
    """Run the command line; a signal that comes while it is loaded ends it without a traceback."""
    exit_at_once()
    try:
        from cryobridge.cli.app import main as run
    except MemoryError:
        sys.exit("Error: not enough memory to load cryobridge\n  → Raise the limit on memory (`ulimit -v`).")

    run()


if __name__ == "__main__":
    main()
