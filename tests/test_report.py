from __future__ import annotations

from cryobridge.report import Report, distinct, note, warning
from helpers import particle_columns, run, save_cs


def test_what_is_said_of_several_files_alike_is_one_message_that_names_them():
    alike = [warning("implausible-unit", "defocus looks like µm", where=f"{name}.cs") for name in "abcde"]
    other = note("rows-sorted", "rows are sorted")
    empty = [warning("file-empty", f"{name} is empty", where=f"J1/{name}") for name in ("a.star", "b.star")]
    said = Report(rows_in=0, rows_out=0, messages=(*alike, other, *empty, other)).messages
    assert [str(message) for message in said] == [
        "defocus looks like µm (in a.cs, b.cs, c.cs and 2 more)",
        "rows are sorted",
        "a.star is empty (also b.star)",
    ]
    assert (said[0].code, said[0].severity, said[0].where) == ("implausible-unit", "warning", "a.cs")
    assert distinct(said) == said
    # Files of the same name are told apart, and other numbers are other facts.
    twice = [warning("file-empty", "it is empty", where=place) for place in ("J1/a.cs", "J2/a.cs")]
    numbers = [warning("nan-values", f"{n} NaN values", where="a.cs") for n in (1, 2)]
    assert str(distinct(twice)[0]) == "it is empty (in J1/a.cs, J2/a.cs)"
    assert distinct(numbers) == tuple(numbers)


def test_a_run_shows_the_same_warning_of_several_files_once(tmp_path):
    for number, name in enumerate(("one.cs", "two.cs", "three.cs")):
        columns = particle_columns([f"{number}.mrc"] * 2, [0, 1])
        columns["uid"] = columns["uid"] + 10 * number
        save_cs(tmp_path / name, columns | {"ctf/cs_mm": columns["ctf/cs_mm"] * 10})
    done = run("merge", "one.cs", "two.cs", "three.cs", "-o", "all.cs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("! ")]
    assert len(lines) == len(set(lines))


def test_verbose_names_the_page_on_warnings(particles_cs, tmp_path):
    words = ("convert", particles_cs, "-o", tmp_path / "p.star")
    shown = run(*words, "-v").stderr
    assert "\n! " in shown
    assert "docs/troubleshooting.md" in shown
    assert "troubleshooting" not in run(*words, "--overwrite").stderr
