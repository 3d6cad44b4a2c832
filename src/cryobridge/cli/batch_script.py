"""Scripts for batch systems: a command of `stacks` as a job that brings its own Dask cluster."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryobridge.cli.help import command_words
from cryobridge.cli.run import ResumeOptions
from cryobridge.cli.terminal import print_text, settings, show_messages, working
from cryobridge.errors import UsageError, option
from cryobridge.jobs.job import executed
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt, declared
from cryobridge.progress import Reporter, Silent
from cryobridge.version import __version__

if TYPE_CHECKING:
    from cryobridge.jobs.job import Job
    from cryobridge.jobs.stacks.options import DeviceOptions, SharingOptions

# Between the paths of an option that takes several; no word of a command line holds it.
BETWEEN = "\0"
_PANEL = "Batch job"
_N_THREADS = 4
_NAME = re.compile(r"[\w.,@+-]{1,200}", re.ASCII)
_TIMES = {
    "slurm": re.compile(r"\d{1,5}|(\d{1,4}-)?\d{1,4}(:\d\d){1,2}|\d{1,4}-\d{1,2}", re.ASCII),
    "pbs": re.compile(r"\d{1,8}|\d{1,4}(:\d\d){1,2}", re.ASCII),
}
# Of the printed command, with the reason why each is not for a script.
_REFUSED = {
    "cluster": "the job brings its own cluster",
    "part": "the job makes all stacks",
    "finish": "the job makes all stacks",
    "overwrite": "a job that is submitted again goes on with what the first one made, rather than remove it",
    "dry_run": "a script is printed when all is checked",
    "as_json": "a script is printed",
}


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """Whether a script is printed instead of the work being done, and what its job asks for."""

    print_slurm: Annotated[
        bool, Opt("Check everything and print a script for sbatch, which does the work; write nothing.", panel=_PANEL)
    ] = False
    print_pbs: Annotated[bool, Opt("Check everything and print a script for qsub.", panel=_PANEL)] = False
    nodes: Annotated[
        int | None, Opt("Number of nodes of the job.", metavar="N", panel=_PANEL, low=1, high=9999, default="1")
    ] = None
    gpus_per_node: Annotated[
        int | None,
        Opt("GPUs of each node; each gets a worker.", metavar="N", panel=_PANEL, low=1, high=64, default="none"),
    ] = None
    cpus_per_task: Annotated[
        int | None,
        Opt(
            "CPUs for each GPU, or without GPUs for each node.",
            metavar="N",
            panel=_PANEL,
            low=1,
            high=1024,
            default="4",
        ),
    ] = None
    time: Annotated[str | None, Opt("Time limit of the job, such as 08:00:00.", metavar="HH:MM:SS", panel=_PANEL)] = (
        None
    )
    partition: Annotated[
        str | None, Opt("Partition of SLURM, or queue of PBS, to submit to.", metavar="NAME", panel=_PANEL)
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.print_slurm and self.print_pbs:
            raise UsageError(f"{option('print_slurm')} and {option('print_pbs')} print one script", hint="Give either.")
        if not self.is_asked:
            for name in ("nodes", "gpus_per_node", "cpus_per_task", "time", "partition"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        "it is for a script", option=name, hint=f"Add {option('print_slurm')} or {option('print_pbs')}."
                    )
            return
        if self.time is not None and not _TIMES[self.system].fullmatch(self.time):
            raise UsageError(f"{self.time!r:.60} is no time", option="time", hint="Give it as HH:MM:SS.")
        if self.partition is not None and not _NAME.fullmatch(self.partition):
            raise UsageError(f"{self.partition!r:.60} is no name", option="partition", hint="`sinfo` lists them.")

    @property
    def is_asked(self) -> bool:
        """Whether a script is asked for."""
        return self.print_slurm or self.print_pbs

    @property
    def system(self) -> str:
        """The batch system, ``"slurm"`` or ``"pbs"``."""
        return "slurm" if self.print_slurm else "pbs"

    @property
    def printing(self) -> str:
        """The option that asks for the script, as a message refers to it."""
        return option(f"print_{self.system}")


def print_batch_script(
    ctx: typer.Context,
    plan: Callable[[Reporter], Job[Any]],
    output: Path,
    batch: BatchOptions,
    device: DeviceOptions,
    sharing: SharingOptions,
    run: ResumeOptions,
) -> None:
    """Check all that a dry run checks, and print the script of a job that does the work.

    Parameters
    ----------
    ctx
        Of the command, with what was typed.
    plan
        Makes the job, on a device that every machine has.
    output
        The output folder.
    batch, device, sharing, run
        The options of the command.

    Raises
    ------
    UsageError
        If options contradict the script, or dask.distributed is not installed.
    CryobridgeError
        As the dry run raises.
    """
    from cryobridge.executors.dask_cluster import require_dask

    _refuse(batch, device, sharing, run)
    require_dask()
    with working("reading") as reporter:
        job = plan(reporter)
    show_messages(job.report().messages)
    executed(job, overwrite=False, dry_run=True, reporter=Silent()).require()
    print_text(batch_script(typed_words(ctx), output, batch))


def _refuse(batch: BatchOptions, device: DeviceOptions, *others: Any) -> None:
    for options in others:
        for name, why in _REFUSED.items():
            if getattr(options, name, None):
                raise UsageError(f"{option(name)} is not for {batch.printing}: {why}", hint="Leave out either.")
    if batch.gpus_per_node is None and device.device.startswith("cuda"):
        raise UsageError("it needs GPUs", option="device", hint=f"Give {option('gpus_per_node', 1)}.")
    if batch.gpus_per_node is not None and device.device not in ("auto", "cuda", "cuda:0"):
        raise UsageError(
            f"{option('gpus_per_node')} gives each worker a GPU, which {option('device', device.device)} does not use",
            hint=f"Give {option('device', 'cuda')}.",
        )


def typed_words(ctx: typer.Context) -> list[list[str]]:
    """Return the command as it was typed, without what asks for the script, and with paths that hold anywhere.

    Returns
    -------
    list of list of str
        The words: those of the command, and of each argument and option.
    """
    of_script = {item.name for item in declared(BatchOptions)}
    arguments: list[list[str]] = []
    options: list[list[str]] = []
    for item in ctx.command.get_params(ctx):
        name = item.name or ""
        source = ctx.get_parameter_source(name)
        if name in of_script or source is None or source.name != "COMMANDLINE" or name not in ctx.params:
            continue
        given = ctx.params[name]
        for value in given if isinstance(given, list | tuple) else [given]:
            if isinstance(value, bool):
                options.append([max(item.opts if value else item.secondary_opts, key=len)])
                continue
            texts = str(value).split(BETWEEN)
            if item.type.name == "path" or len(texts) > 1:
                texts = [str(Path(text).absolute()) for text in texts]
            if item.param_type_name == "argument":
                arguments.append(texts)
            else:
                options.append([max(item.opts, key=len), *texts])
    if ["--resume"] not in options:
        options.append(["--resume"])
    of_all = [[f"--{name}"] for name in ("quiet", "verbose", "debug") if getattr(settings, name)]
    return [list(command_words(ctx)), *arguments, *options, *of_all]


def batch_script(words: list[list[str]], output: Path, batch: BatchOptions) -> str:
    """Return the script of a job.

    Parameters
    ----------
    words
        Of the command, as `typed_words` has them.
    output
        The output folder.
    batch
        What the job asks for.
    """
    header = _slurm(batch) if batch.print_slurm else _pbs(batch)
    count = batch.cpus_per_task or _N_THREADS
    constants = [
        f"python={shlex.quote(sys.executable)}",
        f"output={shlex.quote(str(output.absolute()))}",
        "command=(",
        *(f"    {shlex.join(part)}" for part in words),
        ")",
        f"threads=${{SLURM_CPUS_PER_TASK:-{count}}}" if batch.print_slurm else f"threads={count}",
    ]
    lines = [
        "#!/bin/bash",
        *header,
        "",
        f"# Made by cryobridge {__version__}. Submitted again, the job goes on where it stopped.",
        f"# Options of {_INSTEAD[batch.system]} take the place of those above.",
        "set -eu",
        *constants,
    ]
    return "\n".join(lines) + "\n" + _SCHEDULER + _workers(batch) + _WORK


def _workers(batch: BatchOptions) -> str:
    if batch.gpus_per_node is None:
        worker = _WORKER.replace("N_PROCESSES", '"$threads"').replace("N_THREADS", "1")
        return _A_CPU_EACH + worker + (_SRUN if batch.print_slurm else _PBSDSH)
    worker = _WORKER.replace("N_PROCESSES", "1").replace("N_THREADS", '"$threads"')
    worker = worker.replace("    env", '    bash -c "$with_one_gpu" worker env', 1)
    if batch.print_slurm:
        return _A_GPU_EACH.replace("NUMBER", "SLURM_LOCALID") + worker + _SRUN
    return _A_GPU_EACH + worker + _PBSDSH_OF_GPUS.replace("N_GPUS", str(batch.gpus_per_node))


_INSTEAD = {"slurm": "sbatch, such as --mem=64G --cpus-per-task=16,", "pbs": "qsub, such as -l walltime=24:00:00,"}


def _slurm(batch: BatchOptions) -> list[str]:
    lines = [
        "--job-name=cryobridge",
        f"--nodes={batch.nodes or 1}",
        f"--ntasks-per-node={batch.gpus_per_node or 1}",
        f"--cpus-per-task={batch.cpus_per_task or _N_THREADS}",
    ]
    if batch.gpus_per_node:
        lines.append(f"--gpus-per-node={batch.gpus_per_node}")
    if batch.time:
        lines.append(f"--time={batch.time}")
    if batch.partition:
        lines.append(f"--partition={batch.partition}")
    return [f"#SBATCH {line}" for line in (*lines, "--signal=B:TERM@120")]


def _pbs(batch: BatchOptions) -> list[str]:
    gpus = f":ngpus={batch.gpus_per_node}" if batch.gpus_per_node else ""
    n_cpus = (batch.cpus_per_task or _N_THREADS) * (batch.gpus_per_node or 1)
    lines = ["-N cryobridge", "-j oe", f"-l select={batch.nodes or 1}:ncpus={n_cpus}{gpus}:mpiprocs=1"]
    if batch.time:
        lines.append(f"-l walltime={batch.time}")
    if batch.partition:
        lines.append(f"-q {batch.partition}")
    return [f"#PBS {line}" for line in lines]


_SCHEDULER = r"""
# Whoever reaches the scheduler can run programs as you. The keys of this run keep all others out: they lie in the
# output folder, which all nodes see, for you alone, and are removed when the job ends.
mkdir -p -- "$output"
private=$(mktemp -d -- "$output/.keys-XXXXXXXX")
others=()
end() {
    trap '' TERM
    # The scheduler tells the workers to end.
    kill -TERM "${others[@]:0:1}" 2>/dev/null || :
    for _ in {1..20}; do
        kill -0 "${others[@]}" 2>/dev/null || break
        sleep 0.5
    done
    kill -KILL "${others[@]}" 2>/dev/null || :
    rm -rf -- "$private"
}
trap end EXIT
trap 'exit 143' TERM
# Python takes no modules from the folder that the job was submitted in.
cd -- "$private"
(umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=cryobridge \
    -keyout key.pem -out cert.pem 2>openssl.log) || { cat openssl.log >&2; exit 1; }
settings=(
    DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
    DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$private/cert.pem"
    DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=2
    DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES='[]'
    DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'
    # What has to be known of workers, cryobridge says; Dask tells at length that they end.
    DASK_LOGGING__DISTRIBUTED=critical
    OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
)
for who in SCHEDULER WORKER CLIENT; do
    settings+=("DASK_DISTRIBUTED__COMM__TLS__${who}__CERT=$private/cert.pem")
    settings+=("DASK_DISTRIBUTED__COMM__TLS__${who}__KEY=$private/key.pem")
done

# The scheduler, on the first node.
env "${settings[@]}" "$python" -m dask scheduler --protocol tls --port 0 --scheduler-file "$private/scheduler.json" \
    --no-dashboard --dashboard-address 127.0.0.1:0 &
others+=("$!")
until [[ -s scheduler.json ]]; do
    kill -0 "${others[0]}" 2>/dev/null || { echo 'the scheduler has ended' >&2; exit 1; }
    sleep 0.2
done
"""
_A_CPU_EACH = r"""
# The workers: a process for each CPU of every node.
"""
# The number of a worker among those of its node is that of its GPU among those that the job has there.
_A_GPU_EACH = r"""
# The workers: a process for each GPU of every node, which sees no other one.
# shellcheck disable=SC2016  # the variables are those of the node
with_one_gpu='
    IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$NUMBER}"
    export CUDA_VISIBLE_DEVICES=${gpus[NUMBER % ${#gpus[@]}]}
    exec "$@"'
"""
_WORKER = """\
worker=(
    env "${settings[@]}" "$python" -m dask worker --scheduler-file "$private/scheduler.json"
    --nworkers N_PROCESSES --nthreads N_THREADS
    --memory-limit 0 --death-timeout 60 --no-dashboard --dashboard-address 127.0.0.1:0
)
"""
_SRUN = """\
srun --export=ALL --cpus-per-task="$threads" --kill-on-bad-exit=0 --wait=0 --no-kill "${worker[@]}" &
others+=("$!")
"""
_PBSDSH = """\
pbsdsh -- "${worker[@]}" &
others+=("$!")
"""
_PBSDSH_OF_GPUS = """\
for ((number = 0; number < N_GPUS; number++)); do
    pbsdsh -- env NUMBER="$number" "${worker[@]}" &
    others+=("$!")
done
"""
_WORK = r"""
# The work: cryobridge gives tasks to the workers, and ends cleanly when the time is up or the job is cancelled.
env "${settings[@]}" "$python" -m cryobridge "${command[@]}" --cluster "$private/scheduler.json" &
work=$!
trap 'kill -TERM "$work" 2>/dev/null || :' TERM
lost=
while kill -0 "$work" 2>/dev/null; do
    for pid in "${others[@]}"; do
        if [[ -z $lost ]] && ! kill -0 "$pid" 2>/dev/null; then
            lost='the scheduler or the workers have ended before the work'
            kill -TERM "$work" 2>/dev/null || :
        fi
    done
    sleep 1 &
    wait "$!" || :
done
code=0
wait "$work" || code=$?
if [[ -n $lost && $code -ne 0 ]]; then
    echo "$lost" >&2
    exit 1
fi
exit "$code"
"""
