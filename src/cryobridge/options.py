"""How options are declared, once: a frozen dataclass a job, from which the command line and the checks are made.

A field carries its help, choices and bounds in its annotation. `check` holds the values to it, whoever gives them; the
command line makes its flags of the same fields (`cryobridge.cli.build`).
"""

from __future__ import annotations

import inspect
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from cryobridge.errors import UsageError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Offers: TypeAlias = Callable[[Path, str], Iterable[str]]
_UNITS = ("_A", "_px", "_kV", "_mm", "_s", "_percent")


@dataclass(frozen=True)
class Opt:
    """What is known of an option besides its type and default.

    Parameters
    ----------
    help
        What it does, in one line.
    flags
        How it is typed; ``--`` and the field's name without unit if not given. A switch that is on by default has two,
        such as ``"--plots/--no-plots"``.
    metavar
        What stands for its value; the choices of a ``Literal``, or made of its type, if not given.
    panel
        The panel of the help page.
    low, high
        Bounds of a number, both included.
    default
        What the help says of the default, where None stands for something.
    is_hidden
        Whether it is left out of the help: old spellings.
    is_argument
        Whether it is named by its place in the command line, not by a flag.
    complete
        The values that Tab offers; or what finds them, called with the first file that the command line names as an
        argument and what is typed of the value so far.
    """

    help: str = ""
    flags: tuple[str, ...] = ()
    metavar: str = ""
    panel: str = "Options"
    low: float | None = None
    high: float | None = None
    default: str | None = None
    is_hidden: bool = False
    is_argument: bool = False
    complete: tuple[str, ...] | Offers = ()


@dataclass(frozen=True)
class Declared:
    """One field of an options dataclass.

    Parameters
    ----------
    name
        The field.
    kind
        Its type without None, such as ``Path`` or ``tuple[int, ...]``.
    is_optional
        Whether None is a value.
    others
        Types that it may also have in Python, such as arrays in place of a file; the job checks them.
    choices
        Of a ``Literal``; empty for others.
    default
        Its default, or ``dataclasses.MISSING``.
    opt
        What is known of it besides.
    """

    name: str
    kind: Any
    is_optional: bool
    others: tuple[Any, ...]
    choices: tuple[Any, ...]
    default: Any
    opt: Opt

    @property
    def flags(self) -> tuple[str, ...]:
        """How it is typed."""
        return self.opt.flags or (f"--{plain_name(self.name)}",)


def plain_name(name: str) -> str:
    """Return the name of a field as people type it: without its unit, with hyphens."""
    for unit in _UNITS:
        name = name.removesuffix(unit)
    return name.replace("_", "-")


@cache
def declared(options: type) -> tuple[Declared, ...]:
    """Return the fields of an options dataclass that carry an `Opt`, those of its bases first."""
    hints = get_type_hints(options, include_extras=True)
    found = []
    for item in fields(options):
        hint = hints[item.name]
        if get_origin(hint) is not Annotated:
            continue
        kind, *extras = get_args(hint)
        opt = next((extra for extra in extras if isinstance(extra, Opt)), None)
        if opt is None:
            continue
        parts = get_args(kind) if _is_union(kind) else (kind,)
        is_optional = type(None) in parts
        kind, *others = (part for part in parts if part is not type(None))
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        found.append(Declared(item.name, kind, is_optional, tuple(others), choices, item.default, opt))
    return tuple(found)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def check(options: Any) -> None:
    """Hold the values of an options dataclass to their declaration; called by its ``__post_init__``.

    Texts become paths where a path is declared, one value a tuple where several are.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds; ``option`` names it.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Options:
    ...     box_px: Annotated[int, Opt("Edge of the new images.", low=2)]
    ...     def __post_init__(self):
    ...         check(self)
    >>> Options("128")
    Traceback (most recent call last):
    cryobridge.errors.UsageError: box_px: a whole number is needed, not '128'
    """
    for item in declared(type(options)):  # type: ignore[arg-type]
        value = getattr(options, item.name)
        if value is None and item.is_optional:
            continue
        if item.others and not isinstance(value, str | os.PathLike):
            continue
        object.__setattr__(options, item.name, checked(value, item.kind, item.name, item.opt, item.choices))


def checked(value: Any, kind: Any, name: str, opt: Opt | None = None, choices: tuple[Any, ...] = ()) -> Any:
    """Return one value as it is declared.

    Raises
    ------
    UsageError
        As `check`.
    """
    if choices or get_origin(kind) is Literal:
        return _one_of(value, choices or get_args(kind), name)
    if get_origin(kind) is tuple:
        return _several(value, get_args(kind), name, opt)
    if _is_union(kind) and not isinstance(value, str | os.PathLike):
        return value  # what else may be given, the job checks
    if kind is Path or _is_union(kind):
        return as_path(value, name)
    if kind is bool:
        return _typed(value, bool, name, "True or False is needed")
    if kind is int:
        return _bounded(int(_typed(value, int, name, "a whole number is needed")), name, opt)
    if kind is float:
        return _bounded(float(_typed(value, (int, float), name, "a number is needed")), name, opt)
    if kind is str:
        if name == "device" and hasattr(value, "type"):  # torch's own
            return str(value)
        return _typed(value, str, name, "a text is needed")
    if kind is dict:
        return _typed(value, Mapping, name, "values by their names are needed")
    return value


def as_path(value: Any, name: str) -> Path:
    """Return a path that was given as text or as a path.

    Raises
    ------
    UsageError
        If it is neither, or empty.
    """
    if isinstance(value, str | os.PathLike):
        path = os.fsdecode(value)
        if path:
            return Path(path)
        raise UsageError("an empty name is no path", option=name, hint="Give the name of a file or folder.")
    raise UsageError(
        f"a path is needed, not {type(value).__name__} ({value!r:.60})",
        option=name,
        hint="Give the name of a file or folder, as text or as pathlib.Path.",
    )


def _one_of(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    if value in choices:
        return value
    listed = ", ".join(map(str, choices))
    raise UsageError(f"{value!r:.60} is none of {listed}", option=name, hint="Give one of these.")


def _several(value: Any, kinds: tuple[Any, ...], name: str, opt: Opt | None) -> tuple[Any, ...]:
    is_one = isinstance(value, str | bytes | int | float | os.PathLike)
    is_one |= _is_union(kinds[0]) and not isinstance(value, Iterable)
    values = (value,) if is_one else value
    try:
        items = tuple(values)
    except TypeError:
        raise UsageError(f"several values are needed, not {value!r:.60}", option=name, hint="Give a list.") from None
    if kinds[-1] is Ellipsis:
        return tuple(checked(item, kinds[0], name, opt) for item in items)
    if len(items) != len(kinds):
        raise UsageError(f"{len(kinds)} values are needed, not {value!r:.60}", option=name, hint="Give a list of them.")
    return tuple(checked(item, kind, name, opt) for item, kind in zip(items, kinds, strict=True))


def _typed(value: Any, kind: Any, name: str, what: str) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # numpy's numbers
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise UsageError(f"{what}, not {value!r:.60}", option=name, hint=f"It is given as {type(value).__name__}.")


def _bounded(value: Any, name: str, opt: Opt | None) -> Any:
    low, high = (None, None) if opt is None else (opt.low, opt.high)
    is_low = low is not None and not value >= low
    is_high = high is not None and not value <= high
    if not (is_low or is_high or math.isnan(value)):
        return value
    if low is not None and high is not None:
        bounds = f"between {low:g} and {high:g}"
    else:
        bounds = f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else "a number"
    raise UsageError(f"{value:g} is out of range", option=name, hint=f"Give {bounds}.")


def made(options: type[T], given: Mapping[str, Any]) -> T:
    """Make an options dataclass of keywords.

    Raises
    ------
    UsageError
        If there is no such option, with the nearest one as a hint, or a value is wrong.
    """
    all_fields = fields(options)  # type: ignore[arg-type]
    known = [item.name for item in all_fields]
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        from difflib import get_close_matches

        near = get_close_matches(unknown, known, n=1)
        hint = f"Did you mean {near[0]}=?" if near else f"Options are {', '.join(known)}."
        raise UsageError("there is no such option", option=unknown, hint=hint)
    missing = [item.name for item in all_fields if _is_needed(item) and item.name not in given]
    if missing:
        raise UsageError("it has to be given", option=missing[0], hint=f"Give {missing[0]}=.")
    return options(**given)


def _with_fields(text: str, options: type) -> str:
    """Return a docstring in which ``The fields of `Options`.`` is followed by what they are."""
    said = f"The fields of `{options.__name__}`"
    helps = {item.name: item.opt.help.replace(" Repeatable.", "") for item in declared(options)}
    listed = "".join(f"\n        - ``{name}``: {help_text}" for name, help_text in helps.items() if help_text)
    return text.replace(f"{said}.", f"{said}:\n{listed}")


def _is_needed(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def takes(options: type) -> Callable[[F], F]:
    """Show a function's ``**options`` as the fields of a dataclass in its signature, for help and completion.

    Parameters
    ----------
    options
        The dataclass that `made` makes of them.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        plain = [item for item in own.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
        known = declared(options)
        shown_fields = [
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if item.default is MISSING else item.default,
            )
            for item in known
        ]
        function.__signature__ = own.replace(parameters=[*plain, *shown_fields])  # type: ignore[attr-defined]
        function.__doc__ = _with_fields(function.__doc__ or "", options)
        return function

    return decorate
