"""One process that tries inputs on one reader: guided by coverage where atheris is installed, else by chance."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import sys
import time
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

SLOW_S = 5.0
MEMORY_BYTES = 2 << 30
_GROWTH_LIMIT_BYTES = 512 << 20
_REPORT_EVERY = 2000


@dataclass
class Tally:
    """What came of the inputs; written to a file every now and then, so that a killed process is counted too."""

    tried: int = 0
    read: int = 0
    refused: int = 0
    slow: int = 0
    guided: bool = False
    peak_growth_bytes: int = 0
    faults: dict[str, str] = field(default_factory=dict)  # where it was raised, and the file that is kept

    def write(self, path):
        path.with_suffix(".new").write_text(json.dumps(self.__dict__))
        path.with_suffix(".new").replace(path)


class Trial:
    """Tries inputs on a reader and keeps those that end otherwise than they should."""

    def __init__(self, reader, folder, n_inputs):
        self.reader = reader
        self.folder = folder
        self.n_inputs = n_inputs
        self.tally = Tally()
        self._scratch = folder / "scratch"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._now = folder / "now"
        self._start_rss = _peak_rss()

    def __call__(self, data):
        from cryobridge.errors import CryobridgeError

        if self.tally.tried >= self.n_inputs:
            self.stop()
        self.tally.tried += 1
        self._now.write_bytes(data)
        path = self.reader.lay_out(self._scratch, data)
        before, start = _peak_rss(), time.process_time()
        try:
            self.reader.read(path)
            self.tally.read += 1
        except CryobridgeError as error:
            self.tally.refused += 1
            if not str(error):
                self._keep(data, error)
        except Exception as error:
            self._keep(data, error)
        elapsed, growth = time.process_time() - start, _peak_rss() - before  # whatever else the machine does
        if elapsed > SLOW_S:
            self.tally.slow += 1
            self._keep(data, f"slow: {elapsed:.1f} s")
        if growth > _GROWTH_LIMIT_BYTES:
            self._keep(data, f"memory: {growth >> 20} MiB")
        self.tally.peak_growth_bytes = max(self.tally.peak_growth_bytes, _peak_rss() - self._start_rss)
        if self.tally.tried % _REPORT_EVERY == 0:
            self.tally.write(self.folder / "tally.json")

    def stop(self):
        self.tally.write(self.folder / "tally.json")
        sys.stdout.flush()
        os._exit(0)

    def _keep(self, data, fault):
        place = fault if isinstance(fault, str) else _place_of(fault)
        if place.split(":")[0] in {"slow", "memory"} and len(self.tally.faults) > 20:
            return
        if place not in self.tally.faults:
            name = f"fault-{hashlib.sha1(place.encode()).hexdigest()[:8]}"
            (self.folder / name).write_bytes(data)
            if not isinstance(fault, str):
                (self.folder / f"{name}.txt").write_text("".join(traceback.format_exception(fault)))
            self.tally.faults[place] = name
            self.tally.write(self.folder / "tally.json")


def _peak_rss():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _place_of(error):
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "cryobridge" in frame.filename]
    frames = frames or traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno} {last.name}"


def _limit_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def _by_chance(trial, seeds, seed):
    rng = random.Random(seed)
    for data in seeds:
        trial(data)
    while True:
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = mutate.changed(trial.reader, seeds, data, rng)
        trial(data)


def _by_number(trial, seed):
    """Try one case after the other, in steps that come to each of them once before any comes again."""
    n_cases, number = trial.reader.n_cases, seed
    while True:
        number += 104_729
        trial(str(number % n_cases).encode())


def _by_coverage(trial, seeds, corpus, seed):
    import atheris

    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data)

    def mutated(data, max_size, chance):
        rng = random.Random(chance)
        if rng.random() < 0.3:
            data = rng.choice(seeds)  # most of what reaches new code is refused; what is read shall not become rare
        if rng.random() < 0.8:
            return mutate.changed(trial.reader, seeds, data, rng)[:max_size]
        return atheris.Mutate(data, max_size)

    options = [
        "-verbosity=0",
        "-max_len=16384",
        "-timeout=300",
        "-mutate_depth=2",
        "-rss_limit_mb=0",
        "-len_control=0",
        f"-seed={seed}",
    ]
    atheris.Setup(["fuzz", *options, str(corpus)], trial, custom_mutator=mutated)
    atheris.Fuzz()


def main(name, folder, n_inputs, seed):
    folder = Path(folder)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    reader = READERS[name]
    seeds = [*reader.seeds(), *kept_inputs(name)]
    _limit_memory()
    trial = Trial(reader, folder, int(n_inputs))
    if reader.n_cases:
        _by_number(trial, int(seed))
    elif guided:
        trial.tally.guided = True
        _by_coverage(trial, seeds, folder / "corpus", int(seed))
    else:
        _by_chance(trial, seeds, int(seed))


def _warm_up(reader, folder, seeds):
    """Have the libraries imported before memory is limited and measured."""
    from cryobridge.errors import CryobridgeError

    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    for data in seeds:
        try:
            reader.read(reader.lay_out(folder / "scratch", data))
        except CryobridgeError:
            continue
        except Exception as error:  # it is sentence when it has its turn as an input
            sys.stderr.write(f"a seed or kept input fails: {_place_of(error)}\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    try:
        import atheris

        guided = os.environ.get("CRYOBRIDGE_FUZZ_GUIDED", "1") == "1"
    except ImportError:
        guided = False
    # What is imported while the first inputs are read is watched too: readers import when they need to.
    watched = (
        atheris.instrument_imports(include=["cryobridge"], enable_loader_override=False) if guided else nullcontext()
    )
    with watched:
        from fuzz import mutate
        from fuzz.corpus import kept_inputs
        from fuzz.readers import READERS

        _warm_up(READERS[sys.argv[1]], Path(sys.argv[2]), [*READERS[sys.argv[1]].seeds(), *kept_inputs(sys.argv[1])])
    main(*sys.argv[1:])
