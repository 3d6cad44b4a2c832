"""``python -m cryobridge``, and the command ``cryobridge``."""

from cryobridge.cli.interrupts import exit_at_once


def main() -> None:
    """Run the command line; a signal that comes while it is loaded ends it without a traceback."""
    exit_at_once()
    from cryobridge.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
