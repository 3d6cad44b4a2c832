"""Commands made of options dataclasses: each declared field becomes a flag of the command line."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import MISSING, is_dataclass
from functools import cache, wraps
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from cryobridge.cli.number_lists import parse_numbers
from cryobridge.errors import UsageError
from cryobridge.options import Declared, Offers, declared

# From the name of an option to its flag, as the command that runs calls it.
_FLAGS: dict[str, str] = {"output": "-o", "where": "--where"}
# The same for switches that are on unless they are turned off.
_OFF: dict[str, str] = {}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,2})?")


def flag(name: str, value: str | None = None) -> str:
    """Return how an option is typed, with what it is given if that is to be shown."""
    if name not in _FLAGS:
        _look_in_other_commands(name)
    typed = _OFF[name] if value == "False" and name in _OFF else _FLAGS.get(name, name.upper())
    if value is None or value in {"True", "False"}:
        return typed
    is_list = value.startswith("(") and value.endswith(")")
    return f"{typed} {value[1:-1].replace(', ', ',') if is_list else shlex.quote(value)}"


def _look_in_other_commands(name: str) -> None:
    """Load commands until one declares the option; those of `stacks`, which take longest, are among the last."""
    from cryobridge.cli.commands import COMMANDS, module_of

    for command in reversed(COMMANDS):
        module_of(command)
        if name in _FLAGS:
            return


def takes_options(command: Callable[..., Any]) -> Callable[..., None]:
    """Give a command the flags of the options dataclasses among its parameters.

    Parameters
    ----------
    command
        A function whose parameters are arguments of Typer's own, and options dataclasses, whose fields become flags.

    Returns
    -------
    callable
        With a signature that Typer can read; it calls the command with the dataclasses made and checked.
    """
    # Of functions, get_type_hints makes what defaults to None optional once more in Python 3.10, behind which Typer
    # does not see; a signature keeps the hints as they are.
    own = inspect.signature(command, eval_str=True).parameters
    groups = {name: item.annotation for name, item in own.items() if _is_options(item.annotation)}
    places = {item.name: group for group, kind in groups.items() for item in declared(kind)}
    parsers = {item.name: _parser(item) for kind in groups.values() for item in declared(kind)}

    @wraps(command)
    def wrapper(**given: Any) -> None:
        # Another command may have a flag of its own for an option of the same name.
        for kind in groups.values():
            for item in declared(kind):
                _remember(item)
        values: dict[str, dict[str, Any]] = {group: {} for group in groups}
        for name, group in places.items():
            values[group][name] = parsers[name](given.pop(name))
        command(**given, **{group: groups[group](**fields) for group, fields in values.items()})

    plain = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, item in own.items() if name not in groups]
    flags = [_parameter(item) for kind in groups.values() for item in declared(kind)]
    parameters = sorted([*plain, *flags], key=lambda item: item.default is not inspect.Parameter.empty)
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
    return wrapper


def _is_options(annotation: Any) -> bool:
    return isinstance(annotation, type) and is_dataclass(annotation)


def _remember(item: Declared) -> None:
    """Note how an option is typed, for `flag`."""
    long = next((name for name in item.flags if name.startswith("--")), item.flags[0])
    _FLAGS[item.name], _, off = long.partition("/")
    _OFF.pop(item.name, None)
    if off:
        _OFF[item.name] = off


@cache
def _parameter(item: Declared) -> inspect.Parameter:
    """Return a field as a parameter that Typer makes a flag of; commands share the fields of their options' bases."""
    kind, default = _typed_as(item), inspect.Parameter.empty if item.default is MISSING else item.default
    if get_origin(item.kind) is tuple and not default:
        default = None if item.is_optional or default == () else default
    opt = item.opt
    _remember(item)
    # A default is shown where it says something, which None, a switch and what the text explains do not.
    says_something = item.kind is not bool and default not in (None, inspect.Parameter.empty)
    option = typer.Option(
        *item.flags,
        help=opt.help,
        rich_help_panel=opt.panel,
        hidden=opt.is_hidden,
        metavar=_metavar(item),
        show_default=opt.default or (opt.default is None and says_something),
        autocompletion=_completer(opt.complete) if opt.complete else None,
    )
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _typed_as(item: Declared) -> Any:
    """Return the type that Typer reads the words of the command line as."""
    if get_origin(item.kind) is not tuple:
        return item.kind | None if item.is_optional else item.kind
    first, *others = get_args(item.kind)
    if Ellipsis not in others:
        return str | None
    first = get_args(first)[0] if get_origin(first) in (Union, UnionType) else first  # a file; the others are Python's
    return list[str if first is int or get_origin(first) is Literal else first] | None  # type: ignore[misc]


def _metavar(item: Declared) -> str | None:
    if item.opt.metavar or item.kind is bool:
        return item.opt.metavar or None
    return "|".join(map(str, item.choices)) if item.choices else None


def _completer(values: Sequence[str] | Offers) -> Callable[[typer.Context, str], list[str]]:
    """Return what Typer, which reads the annotations of a function, takes for completion."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        if not callable(values):
            return [value for value in values if value.startswith(incomplete)]
        file = _first_file(ctx)
        return [] if file is None else list(values(file, incomplete))

    return complete


def _first_file(ctx: typer.Context) -> Path | None:
    """Return the first file that the command line names as an argument, where the shell has not read its ``~`` yet."""
    # Before an option that still lacks its value, arguments are left as words.
    arguments = [item.name for item in ctx.command.params if item.param_type_name == "argument"]
    words = [*(ctx.params.get(name) for name in arguments if name is not None), *ctx.args]
    firsts = (word[0] if isinstance(word, (list, tuple)) and word else word for word in words)
    return next((Path(first).expanduser() for first in firsts if isinstance(first, (str, Path))), None)


def _parser(item: Declared) -> Callable[[Any], Any]:
    """Return what makes the value of a field of what was typed."""
    if get_origin(item.kind) is not tuple:
        return lambda typed: typed
    kinds = get_args(item.kind)
    absent = None if item.is_optional else ()
    if kinds[-1] is not Ellipsis:
        return lambda typed: absent if typed is None else _pair(typed, kinds, item)
    if kinds[0] is int:
        return lambda typed: parse_numbers(typed, _FLAGS[item.name]) if typed else absent
    if get_origin(kinds[0]) is Literal:
        return lambda typed: tuple(part for text in typed for part in text.split(",")) if typed else absent
    return lambda typed: tuple(typed) if typed else absent


def _is_one(part: str, kind: type) -> bool:
    if kind is float:
        return _NUMBER.fullmatch(part) is not None
    return bool(part) and (kind is str or (part.isdecimal() and len(part) < 10))


def _pair(text: str, kinds: tuple[type, ...], item: Declared) -> tuple[Any, ...]:
    """Return what was typed with a comma between, such as ``4092,5760``."""
    kind, parts = kinds[0], [part.strip() for part in text.split(",")]
    is_complete = len(parts) == len(kinds)
    if (
        is_complete
        and all(_is_one(part, kind) for part in parts)
        and (kind is not str or len(set(parts)) == len(parts))
    ):
        return tuple(map(kind, parts))
    what = {int: "whole numbers", float: "numbers"}.get(kind, "names")
    count = {2: "two"}.get(len(kinds), str(len(kinds)))
    wrong = [part for part in parts if not _is_one(part, kind)] if is_complete else []
    if wrong:
        problem = f"{wrong[0]!r} is no {what.removesuffix('s')}"
    else:
        problem = f"{count} {what} are needed, with a comma between them"
    raise UsageError(
        f"{text}: {problem}",
        option=item.name,
        hint=f"Give {_FLAGS[item.name]} {item.opt.metavar}.",
    )
