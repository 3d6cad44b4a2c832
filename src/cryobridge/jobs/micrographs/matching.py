"""Matching names of micrographs: cryoSPARC's with RELION's, or those of any two files."""

from __future__ import annotations

import difflib
import itertools
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.report import part_of

# cryoSPARC puts a 21-digit uid before imported and corrected names, and what it did behind them.
_UID_PREFIX = re.compile(r"^[0-9]{21}_")
_SUFFIX = re.compile(
    r"_(patch_aligned|rigid_aligned|aligned|doseweighted|dose_weighted|DW|noDW|fractions|movie|background)$",
    re.IGNORECASE,
)
_SPACES = re.compile(r"\s+")
_N_SHOWN = 5
# Names for which the nearest are looked up in an error; the comparison is slow.
_N_COMPARED = 3


@dataclass(frozen=True)
class MicrographMatch:
    """Which RELION micrograph each cryoSPARC micrograph is.

    Parameters
    ----------
    relion_name
        cryoSPARC's name -> RELION's, for those that were found.
    unmatched
        cryoSPARC's names that fit none.
    """

    relion_name: dict[str, str]
    unmatched: tuple[str, ...]


@dataclass(frozen=True)
class MicrographPairs:
    """Which micrographs of two files of any program are the same.

    Parameters
    ----------
    other
        The first file's name -> the other's.
    several
        Names of the first that fit several of the other, with these.
    shared
        Names of the other that several of the first fit, with these.
    """

    other: dict[str, str]
    several: dict[str, tuple[str, ...]]
    shared: dict[str, tuple[str, ...]]


@lru_cache(1 << 16)  # each way of comparing asks again
def full_stem(name: str) -> str:
    """Return a micrograph's name without folder and extension; dots and spaces become underscores, as for RELION."""
    return _one_word(posixpath.splitext(posixpath.basename(name))[0])


def whole_name(name: str) -> str:
    """Return a name with its folders and extension as one word, by which `micrographs` tells files of one name apart.

    Examples
    --------
    >>> whole_name(">J2/grid1/a b.mrc")
    'J2_grid1_a_b_mrc'
    """
    return _one_word(name.removeprefix(">").strip("/").replace("/", "_"))


def _one_word(text: str) -> str:
    return _SPACES.sub("_", text.replace(".", "_"))


def bare_stem(name: str) -> str:
    """Return the full stem without cryoSPARC's uid."""
    return _UID_PREFIX.sub("", full_stem(name))


def normalised_stem(name: str) -> str:
    """Return the bare stem without what motion correction appends."""
    stem = bare_stem(name)
    while (shorter := _SUFFIX.sub("", stem)) != stem:
        stem = shorter
    return stem


def match_micrographs(cryosparc: Sequence[str], relion: Sequence[str]) -> MicrographMatch:
    """Find RELION's name for each of cryoSPARC's micrographs, as `pair_micrographs` does.

    Raises
    ------
    CryobridgeError
        If a name fits two micrographs, or two names one.
    """
    found = pair_micrographs(cryosparc, relion)
    text = ""
    if found.several:
        name, fitting = next(iter(found.several.items()))
        text = f"micrograph {name} fits {len(fitting)}: {_some(fitting)}"
    elif found.shared:
        name, fitting = next(iter(found.shared.items()))
        text = f"{len(fitting)} cryoSPARC micrographs fit {name}: {_some(fitting)}"
    if text:
        raise CryobridgeError(
            text,
            field="location/micrograph_path",
            hint="Give a micrographs STAR file in which names differ.",
        )
    return MicrographMatch(found.other, tuple(name for name in cryosparc if name not in found.other))


def pair_micrographs(first: Sequence[str], other: Sequence[str]) -> MicrographPairs:
    """Find which micrographs of two files are the same, whichever programs named them.

    The names are compared, then one's stem with the other's whole name, then their full stems, then those without uid,
    then the normalised ones, then whether one stem holds the other as whole words (between underscores). The first of
    these that fits decides, and a micrograph that has its partner is none for what fits less well; of several of one
    name, that whose folders are called alike.
    Linear in the number of names.
    """
    as_named, in_full, without_uid, normalised = (
        partial(_by_stem, stem_of=stem_of)
        for stem_of in (lambda name: name.removeprefix(">"), full_stem, bare_stem, normalised_stem)
    )
    levels: list[Callable[[Sequence[str]], Callable[[str], list[str]]]]
    levels = [as_named, _by_whole_name, in_full, without_uid, normalised, _by_words]
    pairs: dict[str, str] = {}
    several: dict[str, tuple[str, ...]] = {}
    shared: dict[str, tuple[str, ...]] = {}
    rest = list(dict.fromkeys(first))
    taken: set[str] = set()
    for level in levels:
        if not rest:
            break
        look_up = level([name for name in other if name not in taken])
        claims: dict[str, list[str]] = defaultdict(list)
        for name in rest:
            fitting = look_up(name)
            if len(fitting) > 1:
                fitting = _in_folders_called_alike(name, fitting)
            if len(fitting) > 1:
                several[name] = tuple(fitting)
            elif fitting:
                claims[fitting[0]].append(name)
        for found, names in claims.items():
            chosen = names if len(names) == 1 else _in_folders_called_alike(found, names)
            if len(chosen) == 1:
                pairs[chosen[0]] = found
            else:
                shared[found] = tuple(names)
        taken |= claims.keys()
        ambiguous = {name for names in shared.values() for name in names}
        rest = [name for name in rest if name not in pairs and name not in several and name not in ambiguous]
    return MicrographPairs(pairs, several, shared)


def unmatched_error(
    match: MicrographMatch,
    others: Sequence[str],
    *,
    file: str = "the STAR file",
    field: str = "location/micrograph_path",
    give: str = "the micrographs_ctf.star",
) -> MissingDataError:
    """Return the error that names micrographs without a partner, and the nearest names for the first of them.

    Parameters
    ----------
    match
        What was found.
    others
        The names that were looked through.
    file, field, give
        Where these are, which column the names without a partner are of, and what to give instead.
    """
    stems = {normalised_stem(name): name for name in others}
    shown = []
    for name in match.unmatched[:_N_COMPARED]:
        nearest = difflib.get_close_matches(normalised_stem(name), stems, n=2, cutoff=0.5)
        shown.append(name + (f" (nearest: {', '.join(stems[stem] for stem in nearest)})" if nearest else ""))
    more = " …" if len(match.unmatched) > len(shown) else ""
    n_all = len(match.unmatched) + len(match.relion_name)
    hint = f"Give {give} of the same micrographs"
    # Where none is matched, none would be left.
    hint += f", or leave them out with {option('on_unmatched', 'skip')}." if match.relion_name else "."
    return MissingDataError(
        f"{part_of(len(match.unmatched), n_all, 'micrograph')} not in {file}: {', '.join(shown)}{more}",
        field=field,
        count=len(match.unmatched),
        hint=hint,
    )


def _by_stem(relion: Sequence[str], stem_of: Callable[[str], str]) -> Callable[[str], list[str]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name in relion:
        names[stem_of(name)].append(name)
    return lambda name: names.get(stem_of(name), [])


def _by_whole_name(other: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a look-up of the names whose stem is the whole name of the one asked for, or the other way about."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in other:
        for key in {full_stem(name), whole_name(name)}:
            names[key].append(name)

    def fitting(name: str) -> list[str]:
        keys = ((whole_name(name), full_stem), (full_stem(name), whole_name))
        return list(dict.fromkeys(one for key, of in keys if key for one in names.get(key, ()) if of(one) == key))

    return fitting


def _in_folders_called_alike(name: str, fitting: list[str]) -> list[str]:
    """Return the one of several micrographs of one name with most folders, from the last on, as a name has them.

    All of them where names differ, or folders don't decide.
    """
    if len({full_stem(other) for other in fitting}) > 1:
        return fitting
    own = name.split("/")[-2::-1]
    shared = []
    for other in fitting:
        pairs = zip(own, other.split("/")[-2::-1], strict=False)
        shared.append(sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    most = max(shared)
    return [fitting[shared.index(most)]] if shared.count(most) == 1 else fitting


def _by_words(relion: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a look-up of the names whose stem holds, or is held by, the stem asked for."""
    whole: dict[str, list[str]] = defaultdict(list)
    within: dict[str, list[str]] = defaultdict(list)
    for name in relion:
        stem = normalised_stem(name)
        whole[stem].append(name)
        for part in _word_runs(stem):
            within[part].append(name)

    def fitting(name: str) -> list[str]:
        stem = normalised_stem(name)
        held = (held for part in _word_runs(stem) for held in whole.get(part, ()))
        return list(dict.fromkeys([*within.get(stem, ()), *held]))

    return fitting


def _word_runs(stem: str) -> Iterator[str]:
    words = stem.split("_")
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            run = "_".join(words[first:last])
            if run.strip("_"):
                yield run


def _some(names: Iterable[str]) -> str:
    chosen = list(names)
    return ", ".join(chosen[:_N_SHOWN]) + (" …" if len(chosen) > _N_SHOWN else "")
