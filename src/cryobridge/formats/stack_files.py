"""A stack of images, with the pickles that say more of them, as one set of particles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import UsageError
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.model.particles import ParticleSet
from cryobridge.report import counted, note

if TYPE_CHECKING:
    from cryobridge.formats.image_list import ImageStack
    from cryobridge.formats.optics import KnownOptics

_PICKLES = (
    "One poses.pkl (rotations (N, 3, 3), and shifts (N, 2)), one ctf.pkl (N, 9) and one ind.pkl (N,) are taken, each "
    "made for this stack."
)


def open_stack(stack: Path, pickles: Sequence[Path]) -> ParticleFiles:
    """Put a stack and its pickles together; a stack alone is images of which no more is known."""
    from cryobridge.formats.image_list import read_image_stack
    from cryobridge.formats.mrc_header import decide_kind
    from cryobridge.formats.pickle_data import load_pickle
    from cryobridge.formats.pickles import classify_pickle, in_words, read_indices

    parts: dict[str, Path] = {}
    for path in pickles:
        value = load_pickle(path)
        kind = classify_pickle(value)
        if kind == "unknown":
            raise UsageError(f"neither poses nor CTF nor rows, but {in_words(value)}", path=path, hint=_PICKLES)
        if kind not in {"poses", "ctf", "indices"} or kind in parts:
            again = f", and so is {parts[kind].name}" if kind in parts else ""
            raise UsageError(f"this is {kind}{again}", path=path, hint="One poses.pkl, ctf.pkl and ind.pkl are taken.")
        parts[kind] = path
    images = read_image_stack(stack)
    messages = []
    if not pickles and images.path == images.headers[0].path:
        decided = decide_kind(images.headers[0])
        if decided.kind == "volume":
            raise UsageError(f"a volume: {decided.reason}", path=stack, hint="Give a stack of images.")
        if not decided.certain:
            text = f"{stack.name} is taken for a stack of images: {decided.reason}"
            messages.append(note("taken-for-stack", text, where=stack))
    n_rows = images.n_sections if parts.keys() & {"poses", "ctf"} else images.n_whole
    chosen = None if "indices" not in parts else read_indices(parts["indices"])
    if chosen is not None and chosen.max(initial=-1) >= n_rows:
        raise UsageError(
            f"row {chosen.max():,} is beyond the {counted(n_rows, 'image')} of {stack.name}",
            path=parts["indices"],
            hint="Give the ind.pkl that was made for this stack.",
        )

    def read(known: KnownOptics) -> ParticleSet:
        if parts.keys() & {"poses", "ctf"}:
            from cryobridge.formats.particles_pickle import particles_from_pickles

            return particles_from_pickles(stack, parts.get("poses"), parts.get("ctf"), known=known)
        return _bare_stack(images, known)

    return ParticleFiles(
        stack,
        "pickles",
        (stack, *parts.values()),
        (),
        None,
        n_rows,
        parts=parts,
        chosen=chosen,
        messages=tuple(messages),
        _read_pickles=read,
    )


def _bare_stack(stack: ImageStack, known: KnownOptics) -> ParticleSet:
    """Return the images of a stack of which nothing else is known."""
    from cryobridge.formats.optics import fill_optics

    n = stack.n_whole
    optics, index = fill_optics(None, None, n, replace(known, box_px=stack.nx), stack.path)
    return ParticleSet(n, stack.path, images=stack.images(are_whole=True), optics=optics, optics_index=index)
