"""Run every benchmark and write docs/performance.md: `make bench`.

    python benchmarks/run_all.py [--quick] [--output FILE] [--only NAME ...]

The table times whole processes, one after the other, on inputs that the benchmarks make. The floor is the least that
any program must do: read the inputs and write as many bytes as come out, or compute the transforms alone. Then each
benchmark runs by itself. Parts that compare with another program need it, and are left out here.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
COMMAND = str(Path(sys.executable).with_name("cryobridge"))
REPEATS = 3
# As many bytes as the inputs are read, and as many as the outputs are written.
COPY = """
import sys
read, written = 0, int(sys.argv[1])
for name in sys.argv[2:]:
    with open(name, "rb", buffering=0) as file:
        while piece := file.read(1 << 22):
            read += len(piece)
with open("floor.bin", "wb", buffering=0) as file:
    while written > 0:
        written -= file.write(bytes(min(written, 1 << 22)))
"""
TRANSFORM = """
import sys, time, torch
n, box = map(int, sys.argv[1:])
pairs = torch.zeros(16, 2 * box, 2 * box, dtype=torch.complex64)
torch.fft.fft2(pairs)
start = time.perf_counter()
for _ in range(max(1, n // 32)):
    torch.fft.fft2(pairs)
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Case:
    """A command on inputs of one size, and what its floor is."""

    name: str
    size: str
    n: int
    prepare: tuple[str, Callable[..., tuple]]
    words: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    output: str = ""
    fft_box_px: int = 0


def cases(scale: int) -> list[Case]:
    """Return what is run; sizes are divided by the scale."""
    rows, images = 1_000_000 // scale, 4096 // scale
    big = f"{rows:,} rows"
    return [
        Case(
            "inspect",
            big,
            rows,
            ("inspect_cs", lambda folder: ("make_file", folder / "particles.cs", rows)),
            ("inspect", "particles.cs"),
            ("particles.cs",),
        ),
        Case(
            "coords",
            f"{rows:,} picks, 5,000 micrographs",
            rows,
            ("coords", lambda folder: ("make_inputs", folder, rows, 5000, {"shuffled": True})),
            ("coords", "picks.cs", "micrographs_ctf.star", "-o", "out"),
            ("picks.cs", "micrographs_ctf.star"),
            "out",
        ),
        Case(
            "convert to STAR",
            f"{rows:,} rows, 49 columns",
            rows,
            ("convert", lambda folder: ("refinement", folder, rows)),
            ("convert", "J42_005_particles.cs", "J42_passthrough_particles.cs", "-o", "out.star"),
            ("J42_005_particles.cs", "J42_passthrough_particles.cs"),
            "out.star",
        ),
        Case(
            "select",
            f"{rows:,} rows, 49 columns",
            rows,
            ("convert", lambda folder: ("refinement", folder, rows)),
            ("select", "J42_005_particles.cs", "--where", "ctf/df1_A > 15000", "-o", "out.cs"),
            ("J42_005_particles.cs", "J42_passthrough_particles.cs"),
            "out.cs",
        ),
        Case(
            "select --like",
            f"{rows:,} particles by place, 5,000 micrographs",
            rows,
            ("like", lambda folder: ("make_inputs", folder, rows, 5000)),
            ("select", "J5_particles.cs", "--like", "run_data.star", "-o", "out.cs"),
            ("J5_particles.cs", "run_data.star"),
            "out.cs",
        ),
        Case(
            "micrographs",
            f"{rows // 100:,} micrographs with motion, 40 frames",
            rows // 100,
            ("micrographs", lambda folder: ("make_inputs", folder, rows // 100)),
            ("micrographs", "J2/exposures.cs", "-o", "out/MotionCorr/job001"),
            ("J2/exposures.cs",),
            "out",
        ),
        Case(
            "converge",
            f"25 iterations of {rows // 10:,} particles",
            25 * (rows // 10),
            ("converge", lambda folder: ("write_job", folder, rows // 10, 25)),
            ("converge", ".", "-o", "out", "--no-plots"),
            tuple(f"run_it{number:03d}_data.star" for number in range(25)),
        ),
        *(
            Case(
                "stacks cs",
                f"{images:,} images of {box} px",
                images,
                ("stacks", lambda folder, box=box: ("make_particles", folder, box, images)),
                ("stacks", "cs", "particles.cs", "-o", "out", "--no-plots", "--device", "cpu"),
                fft_box_px=box,
                output="out",
            )
            for box in (128, 256)
        ),
        Case(
            "stacks downsample",
            f"{images:,} images, 256 → 128 px",
            images,
            ("downsample", lambda folder: ("simulate", folder, images, 256)),
            ("stacks", "downsample", "set.star", "-D", "128", "-o", "out"),
            ("set.star", "set.mrcs"),
            "out",
        ),
    ]


def call(module: str, function: str, *arguments: object) -> None:
    """Call a benchmark's function for its inputs; a dictionary at the end holds its keywords."""
    sys.path.insert(0, str(HERE))
    *places, last = arguments
    keywords = last if isinstance(last, dict) else {}
    getattr(importlib.import_module(module), function)(*(places if keywords else arguments), **keywords)


def measure(words: list[str], folder: Path) -> tuple[float, float, str]:
    """Run a process; return its seconds, the peak of its memory in MB, and what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, usage.ru_maxrss / unit, text


def row(case: Case) -> str:
    """Run a case and return its row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module, arguments = case.prepare
        # In a process of its own: the peak memory of a child counts from that of its parent.
        maker = multiprocessing.get_context("spawn").Process(target=call, args=(module, *arguments(folder)))
        maker.start()
        maker.join()
        runs = []
        for _ in range(REPEATS):
            subprocess.run(["rm", "-rf", case.output or "out"], cwd=folder, check=True)
            runs.append(measure([COMMAND, *case.words, *(["--overwrite"] if case.output else [])], folder))
        seconds, memory = min(run[0] for run in runs), max(run[1] for run in runs)
        if case.fft_box_px:
            words = [sys.executable, "-c", TRANSFORM, str(case.n), str(case.fft_box_px)]
            floor, what = float(measure(words, folder)[2]), "transforms"
        else:
            output = folder / case.output if case.output else None
            paths = [output, *output.rglob("*")] if output else []
            files = [path for path in paths if path.is_file() and not path.is_symlink()]
            size = sum(path.stat().st_size for path in files)
            words = [sys.executable, "-c", COPY, str(size), *case.inputs]
            floor, what = min(measure(words, folder)[0] for _ in range(REPEATS)), "bytes"
    print(f"{case.name}: {seconds:.2f} s", flush=True)
    each = f"{case.n / seconds:,.0f}"
    return f"| `{case.name}` | {case.size} | {seconds:.2f} | {each} | {memory:,.0f} | {floor:.2f} ({what}) |"


def machine() -> str:
    """Return what the figures were taken on, in words."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    load = f", load {os.getloadavg()[0]:.1f} when it began" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores{load}, {platform.system()}, Python {platform.python_version()}"


def own_output(name: str, arguments: list[str]) -> str:
    """Run a benchmark by itself and return what it prints, as a section of the page."""
    print(f"benchmarks/{name}.py", flush=True)
    words = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    text = done.stdout if done.returncode == 0 else f"failed:\n{done.stderr[-1000:]}"
    return f"### {' '.join(['benchmarks/' + name + '.py', *arguments])}\n\n```\n{text.rstrip()}\n```\n"


def benchmarks(quick: bool) -> dict[str, list[str]]:
    """Return the benchmarks, and the sizes that a quick run gives them."""
    small = {
        "cluster": ["--images", "512", "--repeats", "1", "--tasks", "100"],
        "cluster_model": ["--terabytes", "1"],
        "completion": ["--repeats", "3"],
        "converge": ["5000", "10"],
        "convert": ["20000", "--repeats", "1"],
        "coords": ["--particles", "50000", "--micrographs", "500"],
        "dataset": ["--images", "1024", "--repeats", "1", "--rows", "100000"],
        "downsample": ["--pairs", "1"],
        "inspect_cs": ["--rows", "200000", "--repeats", "1"],
        "like": ["--particles", "50000", "--micrographs", "500"],
        "micrographs": ["--micrographs", "500"],
        "polar_engine": ["--box", "128", "--repeats", "5"],
        "stacks": ["--images", "512", "--repeats", "1"],
        "star_files": ["50000"],
    }
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run_all")
    return {name: small.get(name, []) if quick else [] for name in names}


def again(page: Path, names: list[str], quick: bool) -> None:
    """Take the rows and sections of some benchmarks anew, and say in them when; the rest of the page stays."""
    when = f"Taken on {datetime.date.today():%Y-%m-%d}: {machine()}."
    table, _, rest = page.read_text(encoding="utf-8").partition("\n## Each benchmark\n\n")
    lines = table.splitlines()
    for case in cases(8 if quick else 1):
        if case.prepare[0] in names:
            place = [i for i, line in enumerate(lines) if line.startswith(f"| `{case.name}` | {case.size} |")]
            lines[slice(place[0], place[0] + 1) if place else slice(len(lines), None)] = [row(case)]
    sections = {
        part.split()[0].removesuffix(".py"): f"### benchmarks/{part}" for part in rest.split("### benchmarks/")[1:]
    }
    for name, arguments in benchmarks(quick).items():
        if name in names:
            title, _, content = own_output(name, arguments).partition("\n\n")
            sections[name] = f"{title}\n\n{when}\n\n{content}"
    parts = [sections[name].rstrip() for name in sorted(sections)]
    page.write_text("\n\n".join(["\n".join(lines).rstrip(), "## Each benchmark", *parts]) + "\n", encoding="utf-8")


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, which show mostly how long a start takes")
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="replace only what is of these benchmarks")
    options = parser.parse_args()
    # What Python compiles at a first start is no part of the work.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.only:
        again(options.output, options.only, options.quick)
        return
    head = [
        "# Performance",
        "",
        f"Written by `make bench{' QUICK=1' if options.quick else ''}` on {datetime.date.today():%Y-%m-%d}.",
        f"{machine()}.",
        "",
        "Whole processes, from the start of Python to the end, the fastest of three; the largest peak of memory. The",
        "floor is the least that any program must do: read the inputs and write as many bytes as come out, or compute",
        "the padded Fourier transforms alone. Seconds are of this machine; compare ratios.",
        "",
        "| command | size | seconds | rows or images a second | peak memory (MB) | floor (s) |",
        "|---|---|---|---|---|---|",
    ]
    rows = [row(case) for case in cases(8 if options.quick else 1)]
    sections = [own_output(name, arguments) for name, arguments in benchmarks(options.quick).items()]
    page = "\n".join([*head, *rows, "", "## Each benchmark", "", *sections])
    options.output.write_text(page.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
