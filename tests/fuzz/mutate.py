"""Changes to valid files: some blind, some that keep the container whole so that what lies inside is reached."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import struct
import warnings
import zipfile

import lz4.block

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
NUMBER_TEXTS = (
    *(b"0", b"-1", b"1", b"3", b"255", b"65536", b"2147483648", b"9223372036854775807", b"9223372036854775808"),
    *(
        b"-9223372036854775808",
        b"18446744073709551616",
        b"1e308",
        b"-1e308",
        b"1e400",
        b"nan",
        b"inf",
        b"-inf",
        b"-nan",
    ),
    *(b"NaN", b"Infinity", b"0x10", b"1_000", b"1" * 400, b"9" * 5000, b"0.1", b"1e-320", b"--1", b"", b"true"),
)
TEXTS = (
    *(
        b"\n",
        b"\r\n",
        b"\r",
        b"\t",
        b" ",
        b"\0",
        b"\x1b[31m",
        b"\x1b]0;x\x07",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xc2\xa0",
    ),
    *(
        b"../../etc/passwd",
        b"/etc/passwd",
        b"~",
        b"A" * 300,
        b"'",
        b'"',
        b"#",
        b"@",
        b"\xe2\x80\xae",
        b"\xf0\x9f\x92\xa9",
    ),
)
_FLOATS = tuple(
    struct.pack(kind, number)
    for kind in ("<f", "<d")
    for number in (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 3e38, 1e-45)
) + tuple(struct.pack("<d", number) for number in (1.7e308, -1.7e308, 5e-324))
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
LIMIT_BYTES = 1 << 14


def changed(reader, seeds, data, rng):
    """Return an input changed as suits the reader, or blindly."""

    def change(part, chance):
        return blind(part, chance, reader.tokens, seeds)

    return reader.inside(data, rng, change) if rng.random() < 0.6 else change(data, rng)


def blind(data, rng, tokens=(), others=()):
    """Return data with one to four changes that know nothing of its format."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 3))):
        out = bytearray(rng.choice(_CHANGES)(bytes(out), rng, tokens, others))[:LIMIT_BYTES]
    return bytes(out)


def _place(data, rng):
    # The head of a file decides most.
    return rng.randrange(min(len(data), rng.choice((16, 128, 1 << 14))) or 1)


def _flip(data, rng, _tokens, _others):
    if not data:
        return b"\0"
    at = _place(data, rng)
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _set_byte(data, rng, _tokens, _others):
    at = _place(data, rng)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _set_number(data, rng, _tokens, _others):
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    at = _place(data, rng)
    number = rng.choice(NUMBERS) & ((1 << (8 * size)) - 1)
    return data[:at] + number.to_bytes(size, order) + data[at + size :]


def _truncate(data, rng, _tokens, _others):
    return data[: rng.randrange(len(data) + 1)]


def _cut(data, rng, _tokens, _others):
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 8, 16, 64, 256)) :]


def _repeat(data, rng, _tokens, _others):
    at = _place(data, rng)
    piece = data[at : at + rng.choice((1, 2, 4, 16, 64))]
    return data[:at] + piece * rng.choice((2, 3, 40)) + data[at:]


def _splice(data, rng, _tokens, others):
    if not others:
        return data
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert_token(data, rng, tokens, _others):
    at = _place(data, rng)
    token = rng.choice((*tokens, *TEXTS)) if rng.random() < 0.8 else rng.choice(NUMBER_TEXTS)
    return data[:at] + token + data[at + rng.choice((0, 0, len(token))) :]


def _change_number_text(data, rng, _tokens, _others):
    found = list(_NUMBER.finditer(data[:4096]))
    if not found:
        return _flip(data, rng, _tokens, _others)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBER_TEXTS) + data[match.end() :]


def _change_word(data, rng, tokens, _others):
    words = list(re.finditer(rb"[^\s,:\[\]{}()'\"]+", data[:4096]))
    if not words:
        return data
    match = rng.choice(words)
    new = rng.choice((*(word[0] for word in words[:50]), *tokens, *TEXTS, *NUMBER_TEXTS))
    return data[: match.start()] + new + data[match.end() :]


def _change_lines(data, rng, _tokens, _others):
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[other])
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines[at] = lines[at] + rng.choice((b" ", b" 1", b" x y", b"\t", b"#", b" #", b":", b","))
    return b"\n".join(lines)


_CHANGES = (
    *(_flip, _set_byte, _set_number, _truncate, _cut, _repeat, _splice),
    *(
        _insert_token,
        _insert_token,
        _change_number_text,
        _change_number_text,
        _change_word,
        _change_word,
        _change_lines,
    ),
)


def change_values(data, rng):
    """Overwrite some numbers and leave the size as it is."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        size = rng.choice((1, 2, 4, 8))
        at = rng.randrange(len(out) // size + 1) * size
        new = rng.choice(NUMBERS).to_bytes(9, "little")[:size] if rng.random() < 0.5 else rng.choice(_FLOATS)
        out[at : at + len(new)] = new
    return bytes(out[: len(data)])


def inside_npy(data, rng, change):
    """Change the text of a NumPy header and give its length anew, or change the data behind it."""
    if len(data) < 12 or data[:6] != b"\x93NUMPY":
        return change(data, rng)
    length = int.from_bytes(data[8:10], "little")
    head, rest = data[10 : 10 + length], data[10 + length :]
    if rng.random() < 0.4:
        return data[: 10 + length] + change_values(rest, rng)
    head = change(head, rng)[:65535]
    return data[:8] + struct.pack("<H", len(head)) + head + rest


def inside_csdat(data, rng, change):
    """Change the JSON header of a CSDAT stream and give its length anew, or change a column."""
    if len(data) < 11:
        return change(data, rng)
    length = int.from_bytes(data[6:10], "little")
    head, rest = data[10 : 10 + length], data[10 + length :]
    chance = rng.random()
    if chance < 0.2:
        return data[: 10 + length] + change(rest, rng)
    if chance < 0.6:
        return data[: 10 + length] + _change_a_column(rest, rng)
    head = change(head, rng)
    return data[:6] + struct.pack("<I", len(head)) + head + rest


def _change_a_column(data, rng):
    """Change the values of a column, compressed or not, or the texts behind the columns."""
    places, at = [], 0
    while at + 4 <= len(data) and (size := int.from_bytes(data[at : at + 4], "little")) <= len(data) - at - 4 and size:
        places.append((at + 4, at + 4 + size))
        at += 4 + size
    if not places or rng.random() < 0.15:
        return data[:at] + change_values(data[at:], rng)
    start, stop = rng.choice(places)
    column = data[start:stop]
    try:
        values = lz4.block.decompress(column, uncompressed_size=4096)
        column = lz4.block.compress(change_values(values, rng), store_size=False)
    except lz4.block.LZ4BlockError:
        column = change_values(column, rng)
    return data[: start - 4] + struct.pack("<I", len(column)) + column + data[stop:]


def inside_zip(data, rng, change):
    """Change one member of a zip archive, or its name, and write the archive anew with the right sums."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(item.filename, archive.read(item), item.compress_type) for item in archive.infolist()]
    except Exception:
        return change(data, rng)
    if not members:
        return change(data, rng)
    at = rng.randrange(len(members))
    name, content, kind = members[at]
    if rng.random() < 0.1:
        name = change(name.encode(), rng).decode("latin-1")[:100]
    elif content[:6] == b"\x93NUMPY":
        content = inside_npy(content, rng, change)
    else:
        content = (change_values if rng.random() < 0.2 else change)(content, rng)
    members[at] = (name, content, rng.choice((kind, kind, zipfile.ZIP_DEFLATED)))
    if rng.random() < 0.05:
        members.append(members[rng.randrange(len(members))])
    out = io.BytesIO()
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
            warnings.simplefilter("ignore")  # a name that stands twice is meant
            for member, body, method in members:
                archive.writestr(zipfile.ZipInfo(member), body, method)
    except Exception:
        return change(data, rng)
    return out.getvalue()


def inside_compressed(data, rng, change):
    """Change what a gzip or bzip2 file holds and compress it again."""
    packed = gzip.compress if data[:2] == b"\x1f\x8b" else bz2.compress
    try:
        content = (gzip.decompress if data[:2] == b"\x1f\x8b" else bz2.decompress)(data)
    except Exception:
        return change(data, rng)
    return packed(change(content[:LIMIT_BYTES], rng), 1)


def inside_part(data, rng, change):
    """Keep the byte that tells which file of a folder is meant, most of the time."""
    if len(data) > 1 and data[0] < 2 and data[1] < 64 and rng.random() < 0.5:
        return data[:1] + inside_part(data[1:], rng, change)  # two such bytes
    rest = data[1:]
    if rest.startswith(b"\x93NUMPY"):
        return data[:1] + inside_npy(rest, rng, change)
    if rest.startswith(b"\x80") and rng.random() < 0.4:
        return data[:1] + change_values(rest, rng)
    return data[:1] + change(rest, rng)


def inside_mrc(data, rng, change):
    """Put numbers into the words of the header, or change the pixels."""
    if rng.random() < 0.2:
        return data[:1024] + change_values(data[1024:], rng)
    at = rng.choice((0, 4, 8, 12, 28, 32, 36, 40, 44, 48, 64, 88, 92, 104, 212, rng.randrange(0, 1024, 4)))
    new = rng.choice((0, 1, 2, 3, 4, 6, 8, 12, 101, 2**31 - 1, 2**32 - 1, 2**31, 1 << 20, 1 << 24)).to_bytes(
        4, "little"
    )
    return data[:at] + rng.choice((new, new[::-1], rng.choice(_FLOATS)[:4])) + data[at + 4 :]


def inside_pickle(data, rng, change):
    """Change numbers in place, or anything."""
    return (change_values if rng.random() < 0.3 else change)(data, rng)
