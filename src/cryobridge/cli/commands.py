"""The commands by name, each loaded when it is called; all of them are loaded for help, completion and suggestions."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import typer
from typer.main import get_command

from cryobridge.caller import called_as, is_called
from cryobridge.cli.build import flag
from cryobridge.cli.common import BridgeCommand, BridgeGroup
from cryobridge.cli.terminal import forget_messages

_WORDS = "cryobridge.words"
# In the order of the work.
COMMANDS = ("inspect", "micrographs", "coords", "stacks", "convert", "select", "merge", "converge", "demo")


def module_of(name: str) -> ModuleType:
    """Return the module of a command; its options are known once it is loaded."""
    return import_module(f"cryobridge.cli.{name}_command")


@cache
def load(name: str) -> Any:
    """Return a command, or a group of commands, as Typer makes it of what the command's module holds."""
    module = module_of(name)
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        app.command(name, cls=BridgeCommand)(getattr(module, name))
    return get_command(app)


class RootGroup(BridgeGroup):
    """The whole command: its commands in the order of the work, loaded when they are asked for."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the words of the command line, and keep them for the records of the work."""
        ctx.meta[_WORDS] = ("cryobridge", *args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command that was typed."""
        if not is_called():
            forget_messages()
        with called_as(ctx.meta[_WORDS], flag):
            return super().invoke(ctx)

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names of the commands as help and completion show them."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """Return one command; a name that is none loads them all, for Typer then suggests the nearest."""
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            self.commands[name] = load(name)
        return super().get_command(ctx, cmd_name)
