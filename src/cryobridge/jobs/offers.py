"""What Tab offers for a condition, a column and a list of classes, by the particle file that the command line names."""

from __future__ import annotations

import re
from pathlib import Path

# The name that is being typed, at the beginning of the text or after what a name may follow.
_BEGUN = re.compile(
    r"(?:^|[(,<>=!]|(?<![\w/.])(?:and|or|not|in)\s)\s*(?P<name>(?:[^\W\d][\w/.]*(?:\[[\d,]*)?)?)$", re.IGNORECASE
)


# A name behind which a sign is to follow.
_WHOLE = re.compile(r"(?P<name>[^\W\d][\w/.]*(?:\[[\d,]*\])?) $")
_SIGNS = ("<", ">", "==", "in")


def conditions(particles: Path, typed: str) -> list[str]:
    """Return a condition as far as it is typed, completed by each column of the file that fits.

    Where one column fits, it is offered with each sign: of several offers a shell takes what they have in common, and
    leaves open the quotes that the condition began with.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file, or a job folder.
    typed
        The condition so far, such as ``rlnDefocusU > 12000 and rlnCl``.
    """
    if typed.count("'") % 2 or typed.count('"') % 2:  # within a text
        return []
    from cryobridge.formats.offered import offered_columns

    begun, whole = _BEGUN.search(typed), _WHOLE.search(typed)
    if begun is None:
        is_known = whole is not None and whole["name"] in offered_columns(particles)
        return [typed + sign for sign in _SIGNS] if is_known else []
    before, name = typed[: begun.start("name")], begun["name"]
    found = [before + column for column in offered_columns(particles) if column.startswith(name)]
    return [f"{found[0]} {sign}" for sign in _SIGNS] if len(found) == 1 else found


def columns(particles: Path, typed: str) -> list[str]:
    """Return the columns of the file that begin with what is typed; arrays by their names, without their elements.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file, or a job folder.
    typed
        The name so far, such as ``ctf/d``.
    """
    from cryobridge.formats.offered import offered_columns

    names = dict.fromkeys(column.partition("[")[0] for column in offered_columns(particles))
    return [name for name in names if name.startswith(typed)]


def class_lists(particles: Path, typed: str) -> list[str]:
    """Return a list of classes as far as it is typed, completed by each class of the file that is not in it yet.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file, or a job folder.
    typed
        The list so far, such as ``1,``.
    """
    from cryobridge.formats.offered import offered_classes

    *listed, begun = typed.split(",")
    before = "".join(f"{number}," for number in listed)
    classes = [str(number) for number in offered_classes(particles)]
    return [before + number for number in classes if number.startswith(begun) and number not in listed]
