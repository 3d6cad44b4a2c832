"""Optics groups of micrographs: by names that programs of acquisition give, by beam shifts, or as particles have them.

Optics groups are for values that RELION refines together, beam tilt above all, which goes with the shift of the beam.
Movies that were taken at one position of a pattern of shifts make one group, whatever hole and grid square they are of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.acquisition.names import epu_name, epu_position, serialem_position
from cryobridge.formats.open import open_particles
from cryobridge.formats.optics import group_names
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.formats.relion.star import open_star
from cryobridge.jobs.micrographs.beam_shifts import MDOC, read_sidecars
from cryobridge.jobs.micrographs.matching import MicrographPairs, pair_micrographs
from cryobridge.model.clusters import Clusters, cluster_points
from cryobridge.model.particles import Labels
from cryobridge.report import counted, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.jobs.micrographs.optics_source import OpticsSource
    from cryobridge.model.particles import Floats, Optics, ParticleSet
    from cryobridge.report import Message

# RELION fits beam tilt and more to the particles of each group.
FEW_MICROGRAPHS: Final = 10
MANY_GROUPS: Final = 300
UNASSIGNED: Final = "unassigned"
_N_SHOWN = 3
# STAR files have words without spaces, and RELION's names no slash.
_NO_NAME = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True)
class OpticsGroups:
    """Groups of micrographs.

    Parameters
    ----------
    index
        (n,) int32, the group of each micrograph.
    names
        A name for each group: a word, unless another file names it otherwise.
    messages
        How they were found, and what may be wrong with them.
    clusters
        The groups of beam shifts, where these made them.
    """

    index: NDArray[np.int32]
    names: tuple[str, ...]
    messages: tuple[Message, ...] = ()
    clusters: Clusters | None = None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Acquired:
    """What is known of the acquisition of micrographs besides their names.

    Parameters
    ----------
    movies
        (n,) names of the movies; empty where they are not known.
    files
        (n,) where movies, or micrographs, are on disk; None for those that are not found.
    beam_shift
        (n, 2) x, y; NaN for unknown. None where the metadata have none.
    """

    movies: Sequence[str] = ()
    files: Sequence[Path | None] = ()
    beam_shift: Floats | None = None


def optics_groups(
    names: Sequence[str], source: OpticsSource, acquired: Acquired | None = None, n_groups: int | None = None
) -> OpticsGroups:
    """Return optics groups of micrographs.

    Parameters
    ----------
    names
        (n,) names of the micrographs; the same names are in the same group.
    source
        Where the groups come from.
    acquired
        What else is known of the micrographs.
    n_groups
        How many groups of beam shifts to make; None for as many as the gaps between them show.

    Raises
    ------
    MissingDataError
        If nothing is found by which micrographs could be told apart.
    UsageError
        If there are not so many groups.
    CryobridgeError
        If the file can't be read.

    Examples
    --------
    >>> from cryobridge.jobs.micrographs.optics_source import optics_source
    >>> ends = ("1_Data_5001_7", "1_Data_5002_7", "2_Data_5001_7", "2_Data_5002_7")
    >>> names = [f"FoilHole_{end}_20240101_120000_fractions.tiff" for end in ends]
    >>> found = optics_groups(names, optics_source("epu"))
    >>> found.names, found.index.tolist()
    (('epu_5001_7', 'epu_5002_7'), [0, 1, 0, 1])
    """
    acquired = acquired or Acquired()
    if source.kind == "file":
        found = _of_file(names, source.value)
    elif source.kind == "afis":
        found = _of_shifts(names, acquired, source.value, n_groups)
    else:
        found = _of_names(names, acquired, source)
    sizes = np.bincount(found.index, minlength=len(found))
    return replace(found, messages=(*found.messages, *about_groups(found.names, sizes)))


def about_groups(names: Sequence[str], n_micrographs: NDArray[np.integer[Any]]) -> list[Message]:
    """Return warnings of groups that are too many or too small to be refined.

    Parameters
    ----------
    names
        Of the groups.
    n_micrographs
        (g,) how many micrographs each has.
    """
    messages = []
    n_used = int((n_micrographs > 0).sum())
    if n_used > MANY_GROUPS:
        text = f"{counted(n_used, 'optics group')} are many for RELION, which refines each by its own particles"
        messages.append(warning("many-optics-groups", text, option="optics_from"))
    few = np.flatnonzero((n_micrographs > 0) & (n_micrographs < FEW_MICROGRAPHS))
    if len(few) and n_used > 1:
        said = part_of(len(few), n_used, "optics group", "have", of_one="has")
        named = ", ".join(names[place] for place in few[:_N_SHOWN].tolist()) + (", …" if len(few) > _N_SHOWN else "")
        text = f"{said} fewer than {FEW_MICROGRAPHS} micrographs ({named}): few particles for RELION's CTF refinement"
        messages.append(warning("small-optics-groups", text, option="optics_from"))
    return messages


def _of_names(names: Sequence[str], acquired: Acquired, source: OpticsSource) -> OpticsGroups:
    """Return groups by what names have in them; of the movies' first, which are the programs' own."""
    key_of: Callable[[str], str | None]
    if source.kind == "regex":
        key_of, prefix, why = _by_pattern(source.value), "", "their names do not match the pattern"
    elif source.kind == "epu":
        key_of, prefix, why = epu_position, "epu_", "their names are not EPU's"
    else:
        key_of, prefix, why = serialem_position, "serialem_", "their names have no position by SerialEM"
    keys = _keys(names, acquired.movies, key_of)
    messages: list[Message] = []
    if source.kind == "serialem" and None in keys:
        said = read_sidecars(acquired.movies or names, acquired.files, source.value, (MDOC,))
        keys = [own or position for own, position in zip(keys, said.position, strict=True)]
        messages += said.messages
    if not any(key is not None for key in keys):
        raise _nothing_found(names, source.kind)
    found = _by_keys(keys, prefix)
    messages.append(note("optics-groups", f"{counted(len(set(keys) - {None}), 'optics group')} by names"))
    messages += _about_unassigned(keys, why)
    if source.kind == "epu":
        messages += _old_epu_names(acquired.movies or names)
    return replace(found, messages=tuple(messages))


def _keys(names: Sequence[str], movies: Sequence[str], key_of: Callable[[str], str | None]) -> list[str | None]:
    """Return what is found in the name of each movie, or else of the micrograph."""
    known: dict[str, str | None] = {}
    keys = []
    for place, name in enumerate(names):
        key = None
        for candidate in (*movies[place : place + 1], name):
            if candidate not in known:
                known[candidate] = key_of(candidate)
            key = known[candidate] if key is None else key
        keys.append(key)
    return keys


def _by_pattern(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    """Return what the groups of a pattern match in a name, or all of the match where it has none."""

    def key_of(name: str) -> str | None:
        match = pattern.search(name.rpartition("/")[2]) or pattern.search(name)
        if match is None:
            return None
        return "_".join(part or "" for part in match.groups()) if match.re.groups else match[0]

    return key_of


def _by_keys(keys: Sequence[str | None], prefix: str) -> OpticsGroups:
    """Return a group for each distinct key, in the order of numbers in them; the last for those that have none."""
    order = sorted({key for key in keys if key is not None}, key=_natural)
    place: dict[str | None, int] = {key: number for number, key in enumerate(order)}
    names = [f"{prefix}{_NO_NAME.sub('_', key) or 'none'}" for key in order]
    if None in keys:
        place[None] = len(order)
        names.append(UNASSIGNED)
    return OpticsGroups(np.array([place[key] for key in keys], np.int32), _distinct(names))


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names in which those that are alike are told apart by numbers."""
    seen: dict[str, int] = {}
    distinct = []
    taken = set(names)
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        own = name
        while seen[name] > 1 and own in taken:
            own = f"{name}_{seen[name]}"
            seen[name] += 1
        taken.add(own)
        distinct.append(own)
    return tuple(distinct)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Return a text for sorting by the numbers in it; signs are those behind letters, as in ``X-1Y+0-1``."""
    parts = re.findall(r"(?<=[A-Za-z])[+-]\d+|\d+|\D", text)
    return [(0, int(part), "") if part[-1].isdecimal() else (1, 0, part) for part in parts]


def _about_unassigned(keys: Sequence[object | None], why: str) -> list[Message]:
    n = sum(1 for key in keys if key is None)
    if not n:
        return []
    text = f"{part_of(n, len(keys), 'micrograph')} in an optics group of their own, {UNASSIGNED}: {why}"
    return [warning("optics-unassigned", text, option="optics_from")]


def _nothing_found(names: Sequence[str], kind: str) -> MissingDataError:
    what = {
        "regex": "no name of a micrograph or movie matches the pattern",
        "epu": "no name of a micrograph or movie is EPU's (FoilHole_…_Data_…)",
        "serialem": "neither names nor .mdoc files have a hole and position by SerialEM (X+1Y-1-0)",
        "afis": "no beam shift is known: there are no .xml files by EPU and no .mdoc files by SerialEM",
    }[kind]
    hint = {
        "regex": "Compare the pattern with the names.",
        "epu": f"Give {option('optics_from', 'regex:PATTERN')} for other names.",
        "serialem": f"Give {option('optics_from', 'serialem:FOLDER')} with the folder of the .mdoc files.",
        "afis": f"Give {option('optics_from', 'afis:FOLDER')} with the folder of these files.",
    }[kind]
    shown = f"; they are called as {names[0]}" if names else ""
    return MissingDataError(f"{what}{shown}", option="optics_from", hint=hint)


def _old_epu_names(names: Sequence[str]) -> list[Message]:
    if any(found is not None and found.has_hole_of_pattern for found in map(epu_name, names)):
        return []
    text = (
        "these names by EPU have the place in the hole and not the hole's in the pattern of beam shifts: "
        f"where the beam was shifted from hole to hole, give {option('optics_from', 'afis')}"
    )
    return [note("epu-names-of-holes", text, option="optics_from")]


def _of_shifts(names: Sequence[str], acquired: Acquired, folder: Path | None, n_groups: int | None) -> OpticsGroups:
    """Return groups of beam shifts; those of the metadata where they have any, else of files beside the movies."""
    shift, where = acquired.beam_shift, "of the metadata"
    messages: list[Message] = []
    if folder is not None or shift is None or not np.isfinite(shift).all(axis=1).any():
        said = read_sidecars(acquired.movies or names, acquired.files, folder)
        shift, where = said.shift, f"in {counted(said.n_files, 'file')}"
        messages += said.messages
    is_known = np.asarray(np.isfinite(shift).all(axis=1))
    if not is_known.any():
        raise _nothing_found(names, "afis")
    clusters = cluster_points(shift[is_known], n_groups)
    n = len(clusters.centre)
    index = np.full(len(names), n, np.int32)
    index[is_known] = clusters.index
    group = tuple(f"afis_{number:0{len(str(n))}d}" for number in range(1, n + 1))
    if not is_known.all():
        group = (*group, UNASSIGNED)
    messages += _about_shifts(clusters, where, n_groups)
    messages += _about_unassigned([known or None for known in is_known.tolist()], "their beam shift is not known")
    return OpticsGroups(index, group, tuple(messages), clusters)


def _about_shifts(clusters: Clusters, where: str, asked: int | None) -> list[Message]:
    n = len(clusters.centre)
    said = f"{counted(n, 'optics group')} by the beam shifts {where}"
    others = " or ".join(map(str, clusters.others))
    messages: list[Message] = []
    if asked is not None:
        messages.append(note("optics-groups", f"{said}, as many as {option('optics_groups')} says"))
        if n != asked:
            text = f"the beam shifts make {counted(n, 'group')}, not {asked:,}: some are equally far from each other"
            messages.append(warning("beam-shifts-not-separate", text, option="optics_groups"))
        elif others and not clusters.is_separate:
            text = f"gaps between the beam shifts show {others} groups, not {asked:,}"
            messages.append(warning("beam-shifts-not-separate", text, option="optics_groups"))
    elif clusters.is_separate:
        is_finite = np.isfinite(clusters.separation)
        gaps = (
            f"gaps between them are {clusters.separation:.1f} times as wide as within" if is_finite else "each of one"
        )
        messages.append(note("optics-groups", f"{said}; {gaps}"))
        if others:
            text = f"{others} groups are separate too: {option('optics_groups', clusters.others[0])} takes them"
            messages.append(note("beam-shifts-ambiguous", text, option="optics_groups"))
    else:
        text = (
            f"the beam shifts {where} lie in no separate groups, so all micrographs are in one: give "
            f"{option('optics_groups', 'N')} if they were taken at N positions"
        )
        messages.append(warning("beam-shifts-not-separate", text, option="optics_groups"))
    if clusters.n_apart:
        apart = counted(clusters.n_apart, "micrograph")
        text = f"the beam shifts of {apart} lie apart from all groups, and are in the nearest"
        messages.append(warning("beam-shifts-apart", text, option="optics_from"))
    return messages


def _group_of(name: str, pairs: MicrographPairs, group_of: Mapping[str, int]) -> int | None:
    """Return the group of a micrograph; where it fits several, that of all of them if they have one."""
    others = (pairs.other[name],) if name in pairs.other else pairs.several.get(name, ())
    groups = {group_of[other] for other in others}
    return groups.pop() if len(groups) == 1 else None


def _why_not_of_file(group: Mapping[str, int | None], pairs: MicrographPairs, path: Path) -> str:
    """Say why micrographs have no group of a file."""
    unclear = [name for name in (*pairs.several, *chain(*pairs.shared.values())) if group[name] is None]
    why = f"{path.name} does not have them"
    return f"{why}, or it is not clear which they are, as of {unclear[0]}" if unclear else why


@dataclass(frozen=True)
class _Listed:
    """The optics groups of another file, by its micrographs."""

    micrographs: tuple[str, ...]
    group: list[int]
    names: tuple[str, ...]
    n_mixed: int = 0


def _of_file(names: Sequence[str], path: Path) -> OpticsGroups:
    """Return the groups that another file's particles or micrographs have, matched by the names of micrographs."""
    listed = _listed(path)
    pairs = pair_micrographs(list(dict.fromkeys(names)), listed.micrographs)
    group_of = dict(zip(listed.micrographs, listed.group, strict=True))
    of_name = {name: _group_of(name, pairs, group_of) for name in dict.fromkeys(names)}
    keys = [of_name[name] for name in names]
    used = sorted({key for key in keys if key is not None})
    if not used:
        raise MissingDataError(
            f"none of the micrographs is in it: they are called as {names[0]}, and its as {listed.micrographs[0]}",
            path=path,
            option="optics_from",
            hint="Give a file of the same micrographs.",
        )
    number: dict[int | None, int] = {key: rank for rank, key in enumerate(used)}
    named = [listed.names[key] for key in used]  # to the letter: RELION compares them
    if None in keys:
        number[None] = len(used)
        named.append(UNASSIGNED)
    messages = [note("optics-groups", f"{counted(len(used), 'optics group')} as {path.name} has them")]
    if listed.n_mixed:
        mixed = part_of(listed.n_mixed, len(listed.micrographs), "micrograph")
        text = f"{mixed} in several optics groups of {path.name}: the one of most particles is taken"
        messages.append(warning("optics-groups-mixed", text, where=path))
    messages += _about_unassigned(keys, _why_not_of_file(of_name, pairs, path))
    index = np.array([number[key] for key in keys], np.int32)
    return OpticsGroups(index, tuple(named), tuple(messages))


def _listed(path: Path) -> _Listed:
    """Return the optics groups of the micrographs that a file lists, or that its particles are on."""
    if path.suffix.lower() == ".star" and not path.is_dir():
        star = open_star(path)
        if not {"rlnImageName", "rlnCoordinateX"} & set(star[star.main].names):
            found = read_micrographs(path, movies=True)
            return _by_micrograph(Labels.of(found.names), found.optics, found.optics_index, path)
    needs = ("location/micrograph_path", "ctf/exp_group_id")
    particles = open_particles(path, needs=needs).particles
    name = micrographs_of_particles(particles)
    if name is None:
        raise MissingDataError(
            "its particles don't say on which micrographs they are",
            path=path,
            option="optics_from",
            hint="Give a file with rlnMicrographName, or location/micrograph_path.",
        )
    return _by_micrograph(name, particles.optics, particles.optics_index, path)


def micrographs_of_particles(particles: ParticleSet) -> Labels | None:
    """Return the micrograph that each particle is on, also where it is not known at which place; None if unknown."""
    if particles.locations is not None:
        return particles.locations.micrograph
    column, extra = "rlnMicrographName", particles.extra
    if extra is None or column not in extra.names:
        return None
    found = extra.read([column])[column]
    return found if isinstance(found, Labels) else Labels.of(found)


def _by_micrograph(name: Labels, optics: Optics | None, index: NDArray[np.int32] | None, path: Path) -> _Listed:
    """Return the group that most rows of each micrograph have."""
    if optics is None or index is None or not len(name):
        raise MissingDataError(
            "it has no optics groups",
            path=path,
            option="optics_from",
            hint="Give a file by RELION 3.1 or later, or by cryoSPARC.",
        )
    name = name.without_unused()
    pairs, counts = np.unique(np.stack([name.codes, index], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    _, first, n_groups = np.unique(pairs[order, 0], return_index=True, return_counts=True)
    return _Listed(name.values, pairs[order][first, 1].tolist(), tuple(group_names(optics)), int((n_groups > 1).sum()))
