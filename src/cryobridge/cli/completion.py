"""Tab completion in shells: `--install-completion` and `--show-completion`.

Typer answers the shells, and its scripts make bash and fish ask. Two things are our own: its script for zsh loses
apostrophes and leaves the first Tab of a terminal unanswered, and its installation knows no ``ZDOTDIR``, changes how
zsh's menus look, and writes the user's startup file anew.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import shellingham
import typer
from typer import completion

from cryobridge.cli.terminal import plain, print_text, show
from cryobridge.errors import CryobridgeError, UsageError

_PROGRAM = "cryobridge"
_SHELLS = ("bash", "zsh", "fish")
_NO_LIMIT = 100_000
_ASKED = f"_{_PROGRAM.upper()}_COMPLETE"
# Typer's script has zsh read what is offered as a command of its own, in which apostrophes are lost. This one takes the
# lines that fish gets, each a word and its description with a tab between, and leaves the quoting to zsh. zsh loads the
# script at the first Tab; the last line makes it answer that one too.
_ZSH = f"""#compdef {_PROGRAM}

_{_PROGRAM}_completion() {{
  local line
  local -a offered
  for line in "${{(@f)$(env _TYPER_COMPLETE_ARGS="${{(j: :)words[1,$CURRENT]}}" _TYPER_COMPLETE_FISH_ACTION=get-args \\
      {_ASKED}=complete_fish {_PROGRAM})}}"; do
    [[ -n $line ]] || continue
    if [[ $line == *$'\\t'* ]]; then
      offered+=("${{${{line%%$'\\t'*}}//:/\\\\:}}:${{line#*$'\\t'}}")
    else
      offered+=("${{line//:/\\\\:}}")
    fi
  done
  if (( $#offered )); then
    _describe '' offered
  else
    _files
  fi
}}

compdef _{_PROGRAM}_completion {_PROGRAM}

[[ $funcstack[1] == _{_PROGRAM} ]] && _{_PROGRAM}_completion
"""


def prepare_completion() -> None:
    """Make the command answer a shell that asks it what could stand in a line, or for its script."""
    asked = os.environ.get(_ASKED, "")
    if not asked:
        return
    what, _, shell = asked.partition("_")
    if what == "source":
        print_text(completion_script(shell))
        raise SystemExit(0)
    # Typer breaks the description of an option at the terminal's width, and the rest would be offered as a word.
    os.environ["COLUMNS"] = str(_NO_LIMIT)
    # It makes Typer's two options, which are not used here, and registers the shells that it knows.
    completion.get_completion_inspect_parameters()


def completion_script(shell: str) -> str:
    """Return what makes a shell ask the command, as ``bash``, ``zsh`` or ``fish`` reads it."""
    if shell not in _SHELLS:
        raise UsageError(
            f"there is no completion for {shell or 'this shell, whose name is unknown'}",
            hint=f"There is one for {', '.join(_SHELLS)}: call cryobridge from that shell.",
        )
    if shell == "zsh":
        return _ZSH
    make = completion.get_completion_script  # type: ignore[attr-defined]  # imported there without an "as"
    script = str(make(prog_name=_PROGRAM, complete_var=_ASKED, shell=shell))
    return script.strip("\n") + "\n"


def show_completion(context: typer.Context, _parameter: typer.CallbackParam, value: bool) -> None:
    """Print the script for the shell that the command was called from."""
    if value and not context.resilient_parsing:
        print_text(completion_script(_shell()))
        raise typer.Exit


def install_completion(context: typer.Context, _parameter: typer.CallbackParam, value: bool) -> None:
    """Write the script where the shell that the command was called from finds it."""
    if not value or context.resilient_parsing:
        return
    shell = _shell()
    script = completion_script(shell)
    place = _place(shell)
    try:
        place.script.parent.mkdir(parents=True, exist_ok=True)
        place.script.write_text(script, encoding="utf-8")
        place.add_line()
    except OSError as error:
        raise CryobridgeError(
            f"completion can't be installed ({error.strerror or error})",
            path=error.filename,
            hint=f"`{_PROGRAM} --show-completion` prints the script, to be put elsewhere by hand.",
        ) from error
    show(plain(f"Completion for {shell} is in {place.script}. Open a new terminal to have it."))
    raise typer.Exit


@dataclass(frozen=True)
class _Place:
    """Where a shell finds a script.

    Parameters
    ----------
    script
        The file of the script.
    startup, line
        The file that the shell reads when it starts, and the line there that loads the script; None and empty
        where the shell looks for scripts by itself.
    """

    script: Path
    startup: Path | None = None
    line: str = ""

    def add_line(self) -> None:
        """Add the line at the end of the startup file, unless it is there."""
        if self.startup is None:
            return
        # Added, not written anew: the file may be a link, and its bytes are the user's.
        before = self.startup.read_bytes() if self.startup.exists() else b""
        if self.line.encode() in before.splitlines():
            return
        self.startup.parent.mkdir(parents=True, exist_ok=True)
        with self.startup.open("ab") as file:
            file.write((b"\n" if before and not before.endswith(b"\n") else b"") + f"{self.line}\n".encode())


def _place(shell: str) -> _Place:
    home = Path.home()
    if shell == "bash":
        script = home / ".bash_completions" / f"{_PROGRAM}.sh"
        return _Place(script, home / ".bashrc", f"source {shlex.quote(str(script))}")
    if shell == "zsh":
        startup = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
        line = "fpath+=~/.zfunc; autoload -Uz compinit; compinit"
        return _Place(home / ".zfunc" / f"_{_PROGRAM}", startup, line)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return _Place(config / "fish" / "completions" / f"{_PROGRAM}.fish")


def _shell() -> str:
    """Return the name of the shell that the command was called from, or else of the one that the user logs in to."""
    try:
        return str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        return Path(os.environ.get("SHELL", "")).name
