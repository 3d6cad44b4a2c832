"""TIFF and EER files, put together from the tables of their specifications."""

import struct

import numpy as np


def directory(order, is_big, following, **tags):
    """One directory, put together from the tables of the TIFF and BigTIFF specifications."""
    numbers = {"width": 256, "height": 257, "bits": 258, "compression": 259}
    entry, count, offset = ("HHQI4x", "Q", "Q") if is_big else ("HHII", "H", "I")
    entries = b"".join(
        struct.pack(order + entry, numbers[name], 4, 1, value) for name, value in sorted(tags.items(), key=str)
    )
    return struct.pack(order + count, len(tags)) + entries + struct.pack(order + offset, following)


def tiff_bytes(pages, order="<", is_big=False, last=0):
    """A TIFF file of directories only; the last one leads to ``last``."""
    mark = b"II" if order == "<" else b"MM"
    start = 16 if is_big else 8
    head = (
        mark + struct.pack(order + "HHHQ", 43, 8, 0, start) if is_big else mark + struct.pack(order + "HI", 42, start)
    )
    content, place = head, start
    for number, page in enumerate(pages):
        length = len(directory(order, is_big, 0, **page))
        place += length
        content += directory(order, is_big, last if number == len(pages) - 1 else place, **page)
    return content


def eer_bytes(frames, side=4096):
    """An EER file: a BigTIFF with a page a frame, in which runs of pixels without an electron are written.

    A token has 8 bits for the length of the run and 4 for where in its pixel the electron is; 255 is a run without an
    electron behind it. Two tokens are three bytes.

    Parameters
    ----------
    frames
        Of each frame the pixels, counted along the rows, in which an electron is seen, each once, in their order.
    """
    events = [_events(np.asarray(pixels, np.int64), side * side) for pixels in frames]
    entries_bytes = 8 + 9 * 20 + 8
    starts = np.cumsum([16, *(len(part) + entries_bytes for part in events)])[:-1].tolist()
    directories = [start + len(part) for start, part in zip(starts, events, strict=True)]
    content = [struct.pack("<2sHHHQ", b"II", 43, 8, 0, directories[0])]
    for part, start, following in zip(events, starts, [*directories[1:], 0], strict=True):
        values = {256: side, 257: side, 258: 8, 259: 65000, 262: 1, 273: start, 277: 1, 278: side, 279: len(part)}
        entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in values.items())
        content += [part, struct.pack("<Q", len(values)), entries, struct.pack("<Q", following)]
    return b"".join(content)


def _events(pixels, n_pixels):
    gaps = np.diff(pixels, prepend=-1) - 1
    skips = gaps // 255
    ends = np.cumsum(skips + 1) - 1
    rest = n_pixels - (int(pixels[-1]) + 1 if len(pixels) else 0)
    tokens = np.full((int(ends[-1]) + 1 if len(ends) else 0) + rest // 255 + 1, 255)
    tokens[ends] = gaps % 255
    tokens[-1] = rest % 255  # ends behind the last pixel
    first, second = np.append(tokens, np.full(len(tokens) % 2, 255)).reshape(-1, 2).T
    return np.stack([first, (second & 15) << 4, second >> 4], axis=1).astype(np.uint8).tobytes()


PAGE = {"width": 7420, "height": 7676, "compression": 5}
EVENTS = {"width": 4096, "height": 4096, "compression": 65001}
