"""Particles of one file onto the rows of another, which keep their images, names and all columns that are not taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats.cryosparc.particles_write import distinct_uids
from cryobridge.formats.open import open_particles
from cryobridge.formats.particle_files import EXPANDED, PARENT_UID, naming_damage
from cryobridge.formats.relion.accepted import HALF_SETS, half_sets_left_out, half_sets_of_rows
from cryobridge.formats.write import Changes, RowWriter, outputs_of, require_suffix, suffixes_of
from cryobridge.jobs.convert.content import counted_from_1
from cryobridge.jobs.convert.inputs import opened_inputs
from cryobridge.jobs.convert.onto_columns import Columns, about_optics, columns_for, has, in_base, parts_of
from cryobridge.jobs.convert.onto_frame import Frame, frame_of
from cryobridge.jobs.convert.report import ConvertReport, OntoReport
from cryobridge.jobs.convert.rows import choose_rows
from cryobridge.jobs.identity.match import Identities, identities_of
from cryobridge.jobs.identity.pairs import Pairs, pair_rows
from cryobridge.jobs.identity.report import matched as matched_report
from cryobridge.jobs.output_folder import refuse_existing, refuse_inputs, whole_files
from cryobridge.model.convention import AS_STORED
from cryobridge.model.fields import ALIGNMENT_GROUP, FIELDS, numbered
from cryobridge.options import as_path
from cryobridge.progress import Silent
from cryobridge.report import counted, distinct, note, part_of, warning

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Values
    from cryobridge.jobs.convert.options import ConvertOptions, Part, Target
    from cryobridge.model.particles import ParticleSet
    from cryobridge.progress import Reporter
    from cryobridge.report import Message

Rows: TypeAlias = NDArray[np.int64]
_EXPANDED = (PARENT_UID, f"{EXPANDED}/idx")
_NO_PARTNER = "no partner"
# Of images that were extracted again, so many are to be found by place too, and as the same particles: a few parts of
# particles lie where another particle is.
_SAME_PLACES = 0.5


@dataclass(frozen=True, eq=False)
class OntoPlan:
    """Everything that is needed to write the output.

    Parameters
    ----------
    source, base
        The particles, and the file whose rows they go onto.
    options
        What was asked for.
    output
        The file to write.
    rows
        (n,) rows of the base that are written.
    matched
        (n,) whether each of them has a partner.
    particles
        Of those that have one: what is written, in the terms of the model.
    columns
        The same as columns.
    changes
        What differs in the rows from those of the base.
    summary
        What is reported besides.
    messages
        Notes and warnings.
    """

    source: ParticleFiles
    base: ParticleFiles
    options: ConvertOptions
    output: Path
    rows: Rows
    matched: NDArray[np.bool_]
    particles: ParticleSet
    columns: Columns
    changes: Changes
    summary: OntoReport
    messages: tuple[Message, ...]

    def report(self) -> ConvertReport:
        """Return what will be written."""
        poses, left_out = (
            self.particles.poses,
            0 if self.summary.unmatched == "keep" else self.summary.rows_without_partner,
        )
        return ConvertReport(
            rows_in=len(self.rows) + left_out,
            rows_out=len(self.rows),
            left_out={_NO_PARTNER: left_out} if left_out else {},
            messages=self.messages,
            outputs=outputs_of(self.base, self.output),
            inputs=(*self.source.files, *self.base.files),
            alignment=poses.source if poses is not None and "poses" in self.summary.take else None,
            optics_groups=_n_groups(self.base.particles, self.rows),
            coordinates=None,
            coordinates_from=None,
            micrographs=None,
            dropped_columns=(),
            links=0,
            from_ancestors=self.source.from_ancestors,
            onto=self.summary,
        )


@dataclass(frozen=True, eq=False)
class OntoJob:
    """Such a conversion that can be carried out."""

    plan: OntoPlan

    def report(self) -> ConvertReport:
        """Return what will be written."""
        return self.plan.report()

    def check(self, *, overwrite: bool = False) -> None:
        """Refuse to write over a file that is read, or over one that is there.

        Raises
        ------
        UsageError
            If an output is an input.
        OutputExistsError
            If an output is there already and ``overwrite`` is False.
        """
        plan, outputs = self.plan, outputs_of(self.plan.base, self.plan.output)
        refuse_inputs(outputs, [*plan.source.files, *plan.base.files])
        refuse_existing(outputs, overwrite=overwrite)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> ConvertReport:
        """Write the files, all or none, and read them back if that is asked for; raises as `check` does."""
        self.check(overwrite=overwrite)
        plan, reporter = self.plan, reporter or Silent()
        reporter.start("writing", None)
        with whole_files(outputs_of(plan.base, plan.output), overwrite=overwrite):
            RowWriter(plan.base).write(plan.output, plan.rows, plan.changes)
        if not plan.options.verify:
            return plan.report()
        from cryobridge.jobs.convert.verify import verify_onto

        reporter.start("reading back", None)
        return replace(plan.report(), verified=tuple(verify_onto(plan)))


def plan_onto(inputs: Any, output: Path, options: ConvertOptions) -> OntoPlan:
    """Read both files, find out which rows are the same particle, and make the columns.

    Parameters
    ----------
    inputs
        As `cryobridge.jobs.convert.plan.plan_convert` takes them.
    output
        A file of the program of ``options.onto``.
    options
        What is asked for.

    Raises
    ------
    UsageError
        If options contradict one another or the files, or would do nothing.
    CryobridgeError
        If a file can't be read, has no particle of the other, or lacks what is to be taken.
    """
    base = _opened_base(options, output)
    target: Target = "star" if base.star is not None else "cs"
    source = opened_inputs(inputs, "cs", options)
    with naming_damage(base), naming_damage(source):
        return _planned(source, base, output, target, options)


def _planned(
    source: ParticleFiles, base: ParticleFiles, output: Path, target: Target, options: ConvertOptions
) -> OntoPlan:
    options.refuse_idle(source.program, target)
    messages = [*source.messages, *source.particles.messages, *base.messages]
    chosen, _, found = choose_rows(source, options)
    messages += found
    take = _parts(source.particles.take(chosen), options, messages)
    pairs = _pairs(source, base, chosen, options)
    messages += pairs.match.messages
    rows, of_source = _rows_to_write(pairs, len(base), options, base)
    matched = of_source >= 0
    both = source.particles.take(of_source[matched]), base.particles.take(rows[matched])
    frame = frame_of(
        *both, replace(pairs, base=rows[matched], source=of_source[matched]), (source.program, base.program)
    )
    messages += [*frame.messages, *about_optics(both[0], both[1], take)]
    particles = in_base(*both, frame, take, counts_px=base.star is not None and "optics" not in base.star)
    if target == "cs":
        particles, found = counted_from_1(particles)
        messages += found
    places = of_source[matched], rows[matched]
    columns = _made(particles, source, base, places, take, options)
    messages += columns.messages
    if base.star is not None and HALF_SETS not in columns.made:  # the file's own, of the rows that are left
        messages += half_sets_left_out(half_sets_of_rows(base.star[base.star.main], rows))
    made = {name: _of_all(name, values, base, rows, matched) for name, values in columns.made.items()}
    made |= _identities(source, base, rows, of_source)
    if columns.optics and not matched.all():
        raise UsageError(
            "aberrations are those of optics groups, which rows without a partner share",
            option="unmatched",
            hint=f"Leave these rows out ({option('unmatched', 'drop')}), or aberrations out of {option('take')}.",
        )
    changes = Changes(made=made, without=columns.without, optics=columns.optics)
    summary = _summary(source, base, options, take, pairs, chosen, frame, columns, made)
    messages += _about_rows(summary, source, base, frame)
    return OntoPlan(
        source, base, options, output, rows, matched, particles, columns, changes, summary, distinct(messages)
    )


def _opened_base(options: ConvertOptions, output: Path) -> ParticleFiles:
    assert options.onto is not None  # asked before
    base = open_particles(as_path(options.onto, "onto"))
    if not suffixes_of(base):
        raise UsageError(
            "not a file with one row a particle", path=options.onto, option="onto", hint="Give a .star or .cs file."
        )
    require_suffix(base, output, f"rows of {base.metadata.name} go into")
    return base


def _parts(particles: ParticleSet, options: ConvertOptions, messages: list[Message]) -> tuple[Part, ...]:
    """Return what is taken: what is asked for, else what there is."""
    asked = options.take
    if asked is not None:
        absent = [part for part in asked if not has(particles, part)]
        if absent or not asked:
            raise MissingDataError(
                f"it has no {' and no '.join(absent) or 'part that is asked for'}",
                path=particles.source,
                option="take",
                hint=f"Of {option('take')} it has {', '.join(parts_of(particles)) or 'nothing'}.",
            )
        return tuple(dict.fromkeys(asked))
    found = parts_of(particles)
    if not found:
        raise MissingDataError(
            "it has neither poses nor CTF, nor several classes or half sets",
            path=particles.source,
            hint="Give the file that has them as another input.",
        )
    messages.append(note("parts-taken", f"what is taken: {', '.join(found)}", option="take"))
    return found


def _pairs(source: ParticleFiles, base: ParticleFiles, chosen: Rows, options: ConvertOptions) -> Pairs:
    """Return which rows are the same particle, of the chosen rows of the source."""
    ours, theirs = (identities_of(each, options.sources) for each in (source, base))
    pairs = pair_rows(ours, theirs, options)
    if pairs.match.is_by_record and (options.take is None or "poses" in options.take):
        pairs = _by_place(pairs, ours, theirs, options)
    is_chosen = np.zeros(len(source), bool)
    is_chosen[chosen] = True
    kept = is_chosen[pairs.source]
    if not kept.any():
        raise MissingDataError(
            f"none of the chosen particles is in {base.metadata.name}", path=source.metadata, hint="Choose others."
        )
    return replace(pairs, base=pairs.base[kept], source=pairs.source[kept])


def _by_place(pairs: Pairs, ours: Identities, theirs: Identities, options: ConvertOptions) -> Pairs:
    """Return pairs of images that were extracted again by place: shifts follow the boxes, wherever they lie now.

    Raises
    ------
    CryobridgeError
        If the particles do not lie where those do that their images were made from: they are parts of these.
    """
    why = ""
    try:
        found = pair_rows(ours.without_record(), theirs.without_record(), options)
        width = int(max(pairs.source.max(), found.source.max())) + 1
        is_same = np.isin(pairs.base * width + pairs.source, found.base * width + found.source)
        if found.match.by == "place" and is_same.mean() >= _SAME_PLACES:
            return found
    except CryobridgeError as error:
        why = f" ({error.args[0]})"
    raise CryobridgeError(
        f"its images were extracted again around other centres than those of {ours.path.name}, whose poses lead "
        f"elsewhere{why}",
        path=theirs.path,
        option="take",
        hint=f"Take no poses: {option('take', 'ctf,half_sets')}, say.",
    )


def _rows_to_write(pairs: Pairs, n_base: int, options: ConvertOptions, base: ParticleFiles) -> tuple[Rows, Rows]:
    """Return the rows of the base to write, and of the source for each, -1 for none."""
    alone = np.setdiff1d(np.arange(n_base), pairs.base)
    if len(alone) and options.unmatched == "error":
        raise CryobridgeError(
            f"{part_of(len(alone), n_base, 'row', 'have', of_one='has')} no partner",
            path=base.metadata,
            rows=tuple(alone[:3].tolist()),
            count=len(alone),
            option="unmatched",
            hint=f"{option('unmatched', 'drop')} leaves them out, {option('unmatched', 'keep')} keeps them.",
        )
    if options.unmatched != "keep" or not len(alone):
        return pairs.base, pairs.source
    rows = np.concatenate([pairs.base, alone])
    of_source = np.concatenate([pairs.source, np.full(len(alone), -1)])
    order = np.lexsort((of_source, rows))
    return rows[order], of_source[order]


def _made(
    particles: ParticleSet,
    source: ParticleFiles,
    base: ParticleFiles,
    rows: tuple[Rows, Rows],
    take: tuple[Part, ...],
    options: ConvertOptions,
) -> Columns:
    try:
        return columns_for(particles, source, base, rows, take, options.odd_aberrations or "as-derived")
    except CryobridgeError as error:
        error.path = error.path or str(source.files[0])
        raise


def _of_all(name: str, values: Values, base: ParticleFiles, rows: Rows, matched: NDArray[np.bool_]) -> Values:
    """Return a column of all rows that are written: rows without a partner have what the base has."""
    if matched.all():
        return values
    assert isinstance(values, np.ndarray)  # no texts are taken of particles
    if name in base.columns:
        old = np.asarray(base.columns.read([name])[name])[rows]
    else:
        old = np.full((len(rows), *values.shape[1:]), _absent(name, base, int((~matched).sum())))
    merged = old.astype(values.dtype if base.star is None else np.result_type(old, values))
    merged[matched] = values
    return merged


def _absent(name: str, base: ParticleFiles, n_rows: int) -> float:
    """Return what a new column says of a row of which nothing is known."""
    key = name.partition("/")[2]
    for item in FIELDS:
        own = item.columns("cryosparc" if base.star is None else "relion")
        names = {each.removeprefix(f"{ALIGNMENT_GROUP}/") for each in numbered(own, (name,))}
        if name in names or (key and key in names):
            value = 0.0 if item.name == "class_number" and base.star is not None else item.absent
            if value is None:
                raise CryobridgeError(
                    f"{counted(n_rows, 'row has', 'rows have')} no partner and no {item.title}, "
                    "for which there is no word",
                    path=base.metadata,
                    field=name,
                    count=n_rows,
                    option="unmatched",
                    hint=f"Leave them out ({option('unmatched', 'drop')}).",
                )
            return value
    return 0.0  # cryoSPARC's own word for what is not known of a fit


def _identities(source: ParticleFiles, base: ParticleFiles, rows: Rows, of_source: Rows) -> dict[str, Values]:
    """Return uids for rows of a `.cs` file that are written several times: the copies' own, else new ones."""
    if base.program != "cryosparc" or len(np.unique(rows)) == len(rows):
        return {}
    uid = base.uid()
    if uid is None:
        return {}
    own, matched = uid[rows], of_source >= 0
    theirs = source.uid()
    if theirs is not None and source.table is not None and all(name in source.table for name in _EXPANDED):
        new = np.where(matched, theirs[of_source], own)
        expanded = {name: np.asarray(each)[of_source] for name, each in source.table.read(_EXPANDED).items()}
    else:
        new = distinct_uids(own)
        first = np.searchsorted(rows, rows)  # rows are in order
        expanded = dict(zip(_EXPANDED, (own, (np.arange(len(rows)) - first).astype(np.uint32)), strict=True))
    if len(np.unique(new)) < len(new):
        raise CryobridgeError(
            "copies of a particle have the same uid, by which cryoSPARC tells particles apart",
            path=source.metadata,
            field="uid",
            hint="Expand the particles again, or choose one row of each.",
        )
    return {"uid": new, **{name: _unless(values, matched) for name, values in expanded.items()}}


def _unless(values: NDArray[Any], matched: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(matched, values, values.dtype.type(0))


def _summary(
    source: ParticleFiles,
    base: ParticleFiles,
    options: ConvertOptions,
    take: tuple[Part, ...],
    pairs: Pairs,
    chosen: Rows,
    frame: Frame,
    columns: Columns,
    made: Mapping[str, Values],
) -> OntoReport:
    n_matched = len(np.unique(pairs.base))
    named = {*made, *(name for name, values in columns.optics.items() if values is not None)}
    old = {*base.columns.names, *(base.star["optics"].names if base.star is not None and "optics" in base.star else ())}
    return OntoReport(
        base=cast(Path, options.onto),
        take=take,
        matched=matched_report(pairs.match, base.metadata.name),
        rows=len(base),
        rows_without_partner=len(base) - n_matched,
        unmatched=options.unmatched or "drop",
        source_rows=len(chosen),
        source_rows_not_used=len(chosen) - len(np.unique(pairs.source)),
        copies=len(pairs.base) - n_matched,
        offset_largest_A=None if frame.offset_A is None else float(np.hypot(*frame.offset_A.T).max(initial=0.0)),
        replaced=tuple(sorted(named & old)),
        added=tuple(sorted(named - old)),
        removed=columns.without,
    )


def _about_rows(summary: OntoReport, source: ParticleFiles, base: ParticleFiles, frame: Frame) -> list[Message]:
    """Return what became of rows, boxes and columns."""
    name, other = base.metadata.name, source.metadata.name
    messages = []
    if summary.rows_without_partner:
        what = "stay as they are" if summary.unmatched == "keep" else "are left out"
        text = (
            f"{summary.rows_without_partner:,} of {counted(summary.rows, 'row')} of {name} "
            f"{'has' if summary.rows_without_partner == 1 else 'have'} no partner in {other}"
        )
        messages.append(warning("rows-without-partner", f"{text} and {what}", option="unmatched"))
    if summary.source_rows_not_used:
        text = (
            f"{summary.source_rows_not_used:,} of {counted(summary.source_rows, 'row')} of {other} "
            f"{'has' if summary.source_rows_not_used == 1 else 'have'} no partner in {name}"
        )
        messages.append(note("rows-not-used", text))
    if summary.copies:
        text = (
            f"{counted(summary.copies, 'row')} of {name} {'is' if summary.copies == 1 else 'are'} written again, for "
            f"particles of which {other} has several rows"
        )
        messages.append(note("rows-repeated", text))
    if frame.convention != AS_STORED and {"poses", "ctf", "aberrations"} & set(summary.take):
        text = (
            f"the micrographs of {name} lie otherwise ({frame.convention.formula}): orientations, shifts and defocus "
            "angles are those of its images"
        )
        messages.append(note("images-lie-otherwise", text))
    if summary.removed:
        text = f"left out, as they are said of other poses or CTF: {', '.join(summary.removed)}"
        messages.append(note("columns-not-true", text))
    return messages


def _n_groups(particles: ParticleSet, rows: Rows) -> int:
    return 0 if particles.optics_index is None else len(np.unique(particles.optics_index[rows]))
