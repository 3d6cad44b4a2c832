"""Several particle sets as one: rows one after another, optics groups merged, clashes named."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.model.fields import FIELDS
from cryobridge.model.particles import (
    CTF,
    Aberrations,
    ExtraColumns,
    Helix,
    ImageRefs,
    Labels,
    Locations,
    Optics,
    ParticleSet,
    Poses,
)
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_DIGITS = 6


def concatenate(sets: Sequence[ParticleSet]) -> ParticleSet:
    """Return several sets as one, the rows of the first one first.

    Optics groups that agree in name and values become one; others of the same number get a number of their own. What
    only some of the sets know is filled in where the table of columns says what its absence means (no phase shift is
    0), and otherwise dropped; the messages of the result name it, and particles that are in several sets.

    Parameters
    ----------
    sets
        One or more.

    Raises
    ------
    UsageError
        If there is none.

    Examples
    --------
    >>> from pathlib import Path
    >>> first, second = (ParticleSet(2, Path(name), half_set=np.array([1, 2])) for name in ("a.star", "b.star"))
    >>> concatenate([first, second]).half_set.tolist()
    [1, 2, 1, 2]
    """
    if not sets:
        raise UsageError("no particle set is given", option="sets", hint="Give one or more.")
    return sets[0] if len(sets) == 1 else _Concatenation(sets).result()


@dataclass
class _Concatenation:
    """The work of `concatenate`, and what it has to say."""

    sets: Sequence[ParticleSet]
    messages: list[Message] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def result(self) -> ParticleSet:
        optics, indices, own = self._optics()
        parts: dict[str, Any] = {
            "uid": self._arrays("uid", "uid"),
            "images": self._records("images", ImageRefs, "images"),
            "ctf": self._records("ctf", CTF, "CTF"),
            "poses": self._poses(),
            "locations": self._locations(),
            "helix": self._records("helix", Helix, "filaments"),
            "columns": self._columns(),
            "latent": self._latent(),
            "extra": self._extra(own),
        }
        plain = (item for item in FIELDS if not item.part and not item.is_coded)
        parts |= {item.name: self._arrays(item.name, item.title) for item in plain}
        self._name_repeated(parts["uid"], parts["images"])
        if self.dropped:
            text = f"not known of all particles, and left out: {', '.join(dict.fromkeys(self.dropped))}"
            self.messages.append(warning("columns-dropped", text))
        of_sets = [message for particles in self.sets for message in particles.messages]
        return ParticleSet(
            sum(map(len, self.sets)),
            self.sets[0].source,
            optics=optics,
            optics_index=indices,
            messages=tuple(dict.fromkeys((*of_sets, *self.messages))),
            **parts,
        )

    def _arrays(self, name: str, title: str) -> Any:
        """Return a quantity of all rows; None, and its title among the dropped, where a set lacks it."""
        return self._joined([particles.get(name) for particles in self.sets], title)

    def _joined(self, parts: Sequence[Any], title: str) -> Any:
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            self.dropped += [title] if known else []
            return None
        return _after_another(known)

    def _records(self, name: str, kind: type[Any], title: str) -> Any:
        """Return a part of the model, field by field; None where a set lacks it, or what it can't be without."""
        records = [getattr(particles, name) for particles in self.sets]
        if any(record is None for record in records):
            self.dropped += [title] if any(record is not None for record in records) else []
            return None
        values: dict[str, Any] = {}
        for item in fields(kind):
            columns = [getattr(record, item.name) for record in records]
            row = next((row for row in FIELDS if row.name == f"{name}.{item.name}"), None)
            if row is not None and row.absent is not None and any(column is not None for column in columns):
                columns = self._filled(columns, row.title, row.absent)
            values[item.name] = self._joined(columns, row.title if row else f"{title} ({item.name})")
        return kind(**values)

    def _filled(self, columns: list[Any], title: str, absent: float) -> list[Any]:
        if any(column is None for column in columns):
            self.messages.append(note("absent-filled-in", f"no {title} in some of the files; taken as {absent:g}"))
        (shape, *_) = (column.shape[1:] for column in columns if column is not None)
        rows = zip(columns, self.sets, strict=True)
        return [np.full((len(particles), *shape), absent) if column is None else column for column, particles in rows]

    def _poses(self) -> Poses | None:
        poses = [particles.poses for particles in self.sets]
        known = [pose for pose in poses if pose is not None]
        if len(known) < len(poses) or len({pose.is_2d for pose in known}) > 1:
            self.dropped += ["poses"] if known else []
            return None
        matrix = np.concatenate([pose.matrix for pose in known])
        shift_A = self._joined([pose.shift_A for pose in known], "shifts")
        source = ", ".join(dict.fromkeys(pose.source for pose in known))
        return Poses(matrix, shift_A, source, known[0].is_2d)

    def _locations(self) -> Locations | None:
        programs = {None if particles.extra is None else particles.extra.program for particles in self.sets}
        if len(programs) > 1 and any(particles.locations is not None for particles in self.sets):
            self.dropped.append("coordinates (the programs count them in other frames)")
            return None
        found: Locations | None = self._records("locations", Locations, "coordinates")
        return found

    def _columns(self) -> dict[str, Any]:
        names = dict.fromkeys(name for particles in self.sets for name in particles.columns)
        columns = {name: self._joined([item.columns.get(name) for item in self.sets], name) for name in names}
        return {name: values for name, values in columns.items() if values is not None}

    def _latent(self) -> Any:
        """Return the latent coordinates of all rows, if all sets have as many of each."""
        latent = [particles.latent for particles in self.sets]
        if len({None if each is None else each.shape[1] for each in latent}) > 1:
            latent = [None, *(each for each in latent if each is not None)]
        return self._joined(latent, "latent coordinates")

    def _extra(self, optics: Mapping[str, Any]) -> ExtraColumns | None:
        extras = [particles.extra for particles in self.sets]
        known = [extra for extra in extras if extra is not None]
        if not known:
            return None
        if len(known) < len(extras) or len({extra.program for extra in known}) > 1:
            self.dropped.append("columns that only one of the programs has")
            return None
        names = tuple(name for name in known[0].names if all(name in extra.names for extra in known))
        self.dropped += [name for extra in known for name in extra.names if name not in names]
        of_file = frozenset().union(*(extra.of_file for extra in known))
        return ExtraColumns(known[0].program, names, _Several(known), optics=optics, of_file=of_file)

    def _optics(self) -> tuple[Optics | None, NDArray[np.int32] | None, dict[str, Any]]:
        """Return the merged groups, each particle's group, and the groups' other columns."""
        pairs = [(particles.optics, particles.optics_index) for particles in self.sets]
        if any(optics is None or index is None for optics, index in pairs):
            self.dropped += ["optics"] if any(optics is not None for optics, _ in pairs) else []
            return None, None, {}
        groups = [optics for optics, _ in pairs if optics is not None]
        own = self._own_columns(groups)
        everything = _all_groups(groups)
        starts = np.cumsum([0, *map(len, groups)])
        keys = [_key(everything, own, group) for group in range(starts[-1])]
        first: dict[Any, int] = {}
        place = np.array([first.setdefault(key, group) for group, key in enumerate(keys)], np.int64)
        kept, merged = np.unique(place, return_inverse=True)
        everything = self._renumbered(everything, place, starts)
        index = np.concatenate(
            [merged[start + found] for start, (_, found) in zip(starts[:-1], pairs, strict=True) if found is not None]
        )
        columns = {name: np.asarray(values)[kept] for name, values in own.items()}
        return everything.take(kept), index.astype(np.int32), columns

    def _own_columns(self, groups: Sequence[Optics]) -> dict[str, Any]:
        """Return the columns of RELION's optics groups that the model does not know, of all groups."""
        own = [{} if particles.extra is None else particles.extra.optics for particles in self.sets]
        names = [name for name in own[0] if all(name in columns for columns in own)]
        self.dropped += [name for columns in own for name in columns if name not in names]
        return {name: np.concatenate([np.asarray(columns[name], object) for columns in own]) for name in names}

    def _renumbered(self, optics: Optics, place: NDArray[np.int64], starts: NDArray[np.int64]) -> Optics:
        """Return the groups with numbers of their own where those of several files clash."""
        number, names = optics.group_id.copy(), list(optics.name)
        taken = set(number[: starts[1]].tolist())
        changed = 0
        for start, stop in pairwise(starts[1:]):
            fresh: set[int] = set()
            for old in np.unique(number[start:stop]).tolist():
                of_number = start + np.flatnonzero(number[start:stop] == old)
                if (place[of_number] < start).all():  # the same groups as before
                    continue
                new = old if old not in taken else max(taken | fresh | set(number.tolist())) + 1
                for group in of_number.tolist():
                    names[group] = f"opticsGroup{new}" if names[group] == f"opticsGroup{old}" else names[group]
                changed += new != old
                number[of_number] = new
                fresh.add(new)
            taken |= fresh
        if changed:
            text = f"{changed:,} optics groups have a new number: groups of several files had the same"
            self.messages.append(note("optics-groups-renumbered", text))
        parts = {item.name: getattr(optics, item.name) for item in fields(Optics)}
        return Optics(**(parts | {"group_id": number, "name": tuple(names)}))

    def _name_repeated(self, uid: Any, images: ImageRefs | None) -> None:
        """Warn of particles that are in it more than once."""
        if uid is not None:
            n_repeated, by = len(uid) - len(np.unique(uid)), "uid"
        elif images is not None:
            distinct, index = np.unique(images.index, return_inverse=True)  # as numbers whose products stay small
            pairs = images.path.codes.astype(np.int64) * len(distinct) + index
            n_repeated, by = len(pairs) - len(np.unique(pairs)), "image"
        else:
            return
        if n_repeated:
            text = f"{counted(n_repeated, 'particle is', 'particles are')} in it more than once, by their {by}"
            self.messages.append(warning("repeated-particles", text))


class _Several:
    """Columns of several files, one after another."""

    def __init__(self, extras: Sequence[ExtraColumns]) -> None:
        self._extras = extras

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the named columns: arrays (n, …) or `Labels`."""
        names = list(names)
        found = [extra.read(names) for extra in self._extras]
        return {name: _after_another([columns[name] for columns in found]) for name in names}


def _after_another(parts: Sequence[Any]) -> Any:
    """Return arrays or labels one after another; numbers beside texts become texts."""
    if not any(isinstance(part, Labels) for part in parts):
        return np.concatenate(parts)
    texts = [part if isinstance(part, Labels) else Labels.of(part) for part in parts]
    values = tuple(dict.fromkeys(value for part in texts for value in part.values))
    place = {value: code for code, value in enumerate(values)}
    codes = [np.array([place[value] for value in part.values], np.int32)[part.codes] for part in texts]
    return Labels(np.concatenate(codes).astype(np.int32), values)


def _all_groups(groups: Sequence[Optics]) -> Optics:
    """Return the groups of several files one after another; what one of them lacks is NaN, and no aberration."""
    values: dict[str, Any] = {}
    for item in fields(Optics):
        columns = [getattr(optics, item.name) for optics in groups]
        if item.name == "name":
            values[item.name] = tuple(name for names in columns for name in names)
        elif all(column is None for column in columns):
            values[item.name] = None
        elif item.name == "aberrations":
            known = [
                Aberrations.none(len(optics)) if column is None else column
                for column, optics in zip(columns, groups, strict=True)
            ]
            parts = (np.concatenate([getattr(one, part.name) for one in known]) for part in fields(Aberrations))
            values[item.name] = Aberrations(*parts)
        else:
            rows = zip(columns, groups, strict=True)
            values[item.name] = np.concatenate(
                [np.full(len(optics), np.nan) if column is None else column for column, optics in rows]
            )
    return Optics(**values)


def _key(optics: Optics, own: Mapping[str, Any], group: int) -> tuple[Any, ...]:
    """Return what two groups have in common if they are one: names and values to six digits."""
    values = [getattr(optics, item.name) for item in fields(Optics) if item.name not in {"name", "aberrations"}]
    if optics.aberrations is not None:
        values += [getattr(optics.aberrations, item.name) for item in fields(Aberrations)]
    numbers = [f"{value:.{_DIGITS}g}" for column in values if column is not None for value in np.ravel(column[group])]
    return (optics.name[group], *numbers, *(str(values[group]) for values in own.values()))
