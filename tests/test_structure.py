"""What holds for the source as a whole."""

from __future__ import annotations

import sys
from pathlib import Path

import cryobridge

SOURCE = Path(cryobridge.__file__).parent


def test_no_module_has_the_name_of_one_of_pythons():
    """Else Python takes ours for its own where a file in the same folder is run."""
    names = {path.stem for path in SOURCE.rglob("*.py")} | {path.parent.name for path in SOURCE.rglob("__init__.py")}
    assert not names & set(sys.stdlib_module_names)
