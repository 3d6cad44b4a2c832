"""Fuzz the readers one after the other, each in a process of its own, and write the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuzz.corpus import keep
from fuzz.readers import READERS

_HERE = Path(__file__).resolve().parent
_PAGE = _HERE.parent.parent / "docs" / "reliability.md"
_FIGURES = _HERE / "figures.json"
_BEGIN, _END = "<!-- fuzz figures: written by make fuzz -->", "<!-- end of fuzz figures -->"
# Of one input, and of the start with all its imports, which takes long on a machine that has other work.
_HANG_S, _START_S = 60, 600


def main():
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="cryobridge-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    tallies = {}
    for name in options.reader or READERS:
        tallies[name] = _fuzz(name, folder / name.replace(" ", "_"), options)
        _say(name, tallies[name])
        if options.keep:
            _keep(name, folder / name.replace(" ", "_"))
        if options.write:
            add_figures(name, tallies[name])
            write_figures(_PAGE)
    n_faults = sum(len(tally["faults"]) for tally in tallies.values())
    if n_faults:
        sys.stdout.write(f"{n_faults} faults; the inputs are in {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 0


def _options():
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("reader", nargs="*", help=f"default: all of {', '.join(READERS)}")
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs to try on each reader")
    parser.add_argument("--seed", type=int, default=int(time.time()) % (1 << 31), help="to repeat a run")
    parser.add_argument("--keep", action="store_true", help="add what reached new code, and faults, to the corpus")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/reliability.md")
    return parser.parse_args()


def _fuzz(name, folder, options):
    """Run workers until enough inputs have been tried; one that dies or hangs is a fault, and another takes over."""
    folder.mkdir(parents=True)
    total = {"tried": 0, "read": 0, "refused": 0, "slow": 0, "guided": False, "peak_growth_bytes": 0, "faults": {}}
    start, round_number = time.monotonic(), 0
    wanted = min(options.inputs, READERS[name].n_cases or options.inputs)
    while total["tried"] < wanted and round_number < 20:
        (folder / "tally.json").unlink(missing_ok=True)
        ending = _run_worker(name, folder, wanted - total["tried"], options.seed + round_number)
        tally = _read_tally(folder)
        for key in ("tried", "read", "refused", "slow"):
            total[key] += tally.get(key, 0)
        total["guided"] |= tally.get("guided", False)
        total["peak_growth_bytes"] = max(total["peak_growth_bytes"], tally.get("peak_growth_bytes", 0))
        total["faults"] |= tally.get("faults", {})
        if ending:
            if not (folder / "now").exists():
                sys.exit(f"{name}: {ending} before its first input:\n{(folder / 'log.txt').read_text()[-2000:]}")
            kept = folder / f"fault-ended-{round_number}"
            shutil.copyfile(folder / "now", kept)
            total["faults"][f"{ending}, round {round_number}"] = kept.name
        round_number += 1
    total["seconds"] = time.monotonic() - start
    return total


def _run_worker(name, folder, n_inputs, seed):
    """Run one worker; return what is odd about its end."""
    words = [sys.executable, str(_HERE / "worker.py"), name, str(folder), str(n_inputs), str(seed)]
    # Threads and allocators otherwise reserve address space, which is limited here.
    quiet = {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    log = folder / "log.txt"
    with log.open("ab") as file:
        worker = subprocess.Popen(words, env={**os.environ, **quiet}, stdout=file, stderr=file)
        seen, since = -1.0, time.monotonic()
        while worker.poll() is None:
            time.sleep(0.2)
            changed = (folder / "now").stat().st_mtime if (folder / "now").exists() else -1.0
            if changed != seen:
                seen, since = changed, time.monotonic()
            elif time.monotonic() - since > (patience_s := _HANG_S if seen > 0 else _START_S):
                worker.kill()
                worker.wait()
                return f"no answer in {patience_s} s"
    return "" if worker.returncode == 0 else f"the process ended with {worker.returncode}"


def _read_tally(folder):
    path = folder / "tally.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _say(name, tally):
    way = "guided by coverage" if tally["guided"] else "by chance"
    sys.stdout.write(
        f"{name}: {tally['tried']:,} inputs {way}, {tally['read']:,} read, {tally['refused']:,} refused, "
        f"{len(tally['faults'])} faults, {tally['seconds']:.0f} s, {tally['peak_growth_bytes'] >> 20} MiB more\n"
    )
    for place, kept in tally["faults"].items():
        sys.stdout.write(f"    {place}: {kept}\n")
    sys.stdout.flush()


def _keep(name, folder):
    found = [path.read_bytes() for path in (folder / "corpus").glob("*") if not path.name.startswith("seed-")]
    faults = [path.read_bytes() for path in folder.glob("fault-*") if path.suffix != ".txt"]
    keep(name, found, faults)


def add_figures(name, tally):
    """Replace a reader's figures of its last round, and add to those of all rounds."""
    figures = json.loads(_FIGURES.read_text()) if _FIGURES.exists() else {}
    before = figures.get(name, {}).get("in all", 0)
    last = {key: tally[key] for key in ("tried", "read", "refused", "slow", "guided")}
    figures[name] = {
        "in all": before + tally["tried"],
        **last,
        "faults": sorted(tally["faults"]),
        "MiB": tally["peak_growth_bytes"] >> 20,
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
    }
    _FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


def write_figures(page):
    """Replace the table of figures in the page."""
    figures = json.loads(_FIGURES.read_text())
    lines = [
        "| reader | inputs in all | last round | read | refused | faults | over 5 s | MiB on top | guided | date |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for name in (name for name in READERS if name in figures):
        row = figures[name]
        lines.append(
            f"| {name} | {row['in all']:,} | {row['tried']:,} | {row['read']:,} | {row['refused']:,} "
            f"| {len(row['faults'])} | {row['slow']} | {row['MiB']} | {('no', 'yes')[row['guided']]} | {row['date']} |"
        )
    rows = figures.values()
    totals = [sum(row[key] for row in rows) for key in ("in all", "tried", "read", "refused")]
    n_faults = sum(len(row["faults"]) for row in rows)
    lines.append(f"| **all** | {' | '.join(f'{total:,}' for total in totals)} | {n_faults} | | | | |")
    faults = [f"- {name}: {fault}" for name, row in figures.items() for fault in row["faults"]]
    if faults:
        lines += ["", "Faults of the last rounds:", "", *faults]
    text = page.read_text()
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    page.write_text(head + _BEGIN + "\n" + "\n".join(lines) + "\n" + _END + tail)


if __name__ == "__main__":
    sys.exit(main())
