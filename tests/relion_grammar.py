"""RELION's own STAR reader, rule by rule, without any leniency of ours: what it would refuse raises GrammarError.

After src/metadata_table.cpp (readStar, readStarLoop, readStarList) and src/strings.cpp (simplify, nextTokenInSTAR)
of RELION 5.0.1.
"""

from __future__ import annotations

import re

_CONTROL = re.compile("[\a\b\v\f\r\n]")


class GrammarError(Exception):
    pass


def read_block(text, name):
    """Return labels, rows of tokens and whether it is a loop, of the block of this name."""
    if not text.endswith("\n"):
        raise GrammarError("the last line has no end")  # RELION copes; what we write shall have one
    lines = text.split("\n")[:-1]
    for number, line in enumerate(lines):
        if line.endswith("\r"):
            raise GrammarError("CR+LF")
        stripped = line.strip(" ")
        if "data_" in stripped and stripped.split("data_", 1)[1] == name:
            return _read_body(lines[number + 1 :])
    raise GrammarError(f"no block data_{name}")


def _read_body(lines):
    for number, line in enumerate(lines):
        if "loop_" in line:
            return (*_read_loop(lines[number + 1 :]), True)
        if line.startswith("_"):
            return (*_read_list(lines[number:]), False)
        if "data_" in line:
            raise GrammarError("a block without loop_ and without labels")
    return [], [], True


def _read_loop(lines):
    labels = []
    rest = iter(lines)
    for raw in rest:
        line = _simplify(raw)
        if not line or line[0] in "#;":
            continue
        if line[0] != "_":
            break
        label, _, number = line[1:].partition("#")
        if number and not label.endswith(" "):
            raise GrammarError(f"no space before #: {line}")
        if number and int(number) != len(labels) + 1:
            raise GrammarError(f"label {len(labels) + 1} is numbered {number}")
        labels.append(label.strip())
    else:
        return labels, []
    rows = []
    while line:
        rows.append(tokens_of(line))
        if len(rows[-1]) != len(labels):
            raise GrammarError(f"{len(rows[-1])} values for {len(labels)} labels: {line}")
        line = _simplify(next(rest, ""))
    return labels, rows


def _read_list(lines):
    labels, values = [], []
    for line in lines:
        tokens = tokens_of(line)
        if not tokens:
            continue
        if tokens[0].startswith("_"):
            if len(tokens) != 2:
                raise GrammarError(f"{len(tokens) - 1} values in a list: {line}")
            labels.append(tokens[0][1:])
            values.append(tokens[1])
        elif tokens[0].startswith(("loop_", "data_")):
            break
        elif tokens[0][0] not in "#;":
            raise GrammarError(f"not a label: {line}")
    return labels, [values]


def _simplify(line):
    return re.sub(" +", " ", _CONTROL.sub("", line.replace("\t", " "))).strip(" ")


def tokens_of(line):
    tokens, place = [], 0
    while True:
        while place < len(line) and line[place] in " \t\n":
            place += 1
        if place >= len(line) or line[place] == "#":
            return tokens
        if line[place] in "'\"":
            token, place = _quoted(line, place)
        else:
            end = place
            while end < len(line) and line[end] not in " \t\n":
                end += 1
            token, place = line[place:end], end
        tokens.append(token)


def _quoted(line, start):
    mark, token = line[start], ""
    for place in range(start + 1, len(line)):
        closes = line[place] == mark and line[place - 1] != "\a"
        if closes and (place + 1 == len(line) or line[place + 1] in " \t\n"):
            return token, place + 1
        if line[place] != "\a":
            token += line[place]
    raise GrammarError(f"no closing quote: {line}")
