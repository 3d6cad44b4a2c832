"""A particle set in memory, with what jobs ask of particle files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.formats.open import open_particles
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.formats.results import has_place, result_columns, results_of
from cryobridge.formats.table import Column, Table, numpy_dtype_label
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

    from cryobridge.formats.table import Values
    from cryobridge.model.particles import ImageRefs, ParticleSet


class SetInMemory(ParticleFiles):
    """A particle set with what jobs ask of particle files.

    Its program is that of the file that its other columns come from; without any it counts as a stack with pickles,
    whose images are named from the working directory.

    Parameters
    ----------
    particles
        The set. Conditions see the columns of the file that it was read from.
    """

    def __init__(self, particles: ParticleSet) -> None:
        n_rows, extra = len(particles), particles.extra
        super().__init__(
            path=particles.source,
            program=extra.program if extra is not None else "pickles",
            files=(particles.source,),
            members=(),
            table=None,
            n_rows=n_rows,
            messages=(),
        )
        self.__dict__["particles"] = particles

    @property
    def columns(self) -> Table:
        """The rows of the set in the file that it was read from.

        Raises
        ------
        UsageError
            If that file can't be known to have them.
        """
        origin, extra = self.particles.origin, self.particles.extra
        if origin is not None and origin.files.table is not None:
            of_file, results = _Rows(origin.files.columns, origin.rows), results_of(self.particles)
            if not has_place(results, origin.files):  # nor a name for them
                results = replace(results, class_number=None, class_posterior=None)
            made, without = result_columns(results, origin.files)
            return _WithColumns(of_file, made, without) if made else of_file
        rows = None if extra is None else extra.rows
        if extra is not None and isinstance(extra.source, Table):
            return _Rows(extra.source, rows)
        table = open_particles(self.path).columns
        if rows is None and table.n_rows != len(self):
            raise UsageError(
                f"its columns are not known: the set has {counted(len(self), 'particle')}, the file "
                f"{counted(table.n_rows, 'row')}",
                path=self.path,
                hint="Select from the file, or by rows=.",
            )
        return _Rows(table, rows)

    def uid(self) -> NDArray[np.uint64] | None:
        """Return cryoSPARC's identity of each particle, (n,), or None."""
        return self.particles.uid

    def parent_uid(self) -> NDArray[np.uint64] | None:
        """Return the uid of the particle that each one is a copy of, (n,), or None, also without its file."""
        try:
            return super().parent_uid()
        except CryobridgeError:
            return None

    def images(self) -> ImageRefs | None:
        """Return the images of the particles, or None."""
        return self.particles.images


class _Rows(Table):
    """Some rows of a table; all of them for None."""

    def __init__(self, table: Table, rows: NDArray[np.int64] | None) -> None:
        super().__init__(table.path, table.n_rows if rows is None else len(rows), table.columns)
        self._table = table
        self._rows = rows

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read the named columns of the given rows."""
        if self._rows is None:
            return self._table.read(names, rows)
        own = self._rows[rows]
        found = self._table.read(names)
        return {name: v[own] if isinstance(v, np.ndarray) else v.take(own) for name, v in found.items()}


class _WithColumns(Table):
    """A table with further columns, which take the place of its own, and without some of these."""

    def __init__(self, table: Table, made: Mapping[str, Values], without: Collection[str]) -> None:
        own = [column for column in table.columns if column.name not in {*made, *without}]
        columns = [
            Column(name, numpy_dtype_label(values.dtype), values.shape[1:])
            if isinstance(values, np.ndarray)
            else Column(name, "text")
            for name, values in made.items()
        ]
        super().__init__(table.path, table.n_rows, (*own, *columns))
        self._table = table
        self._made = made

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read the named columns of the given rows."""
        wanted = self._wanted(names)
        found = self._table.read([name for name in wanted if name not in self._made], rows)
        for name in wanted:
            if name in self._made:
                values = self._made[name]
                found[name] = values[rows] if isinstance(values, np.ndarray) else values.take(rows)
        return {name: found[name] for name in wanted}
