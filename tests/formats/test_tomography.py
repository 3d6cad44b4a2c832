"""STAR files of tomography: recognised in the layouts of each program, refused by name; and tilts of one particle."""

from __future__ import annotations

import pytest

import cryobridge as cb
from cryobridge.errors import FormatError
from cryobridge.formats.relion.star import open_star
from cryobridge.formats.relion.tomography import tilted_particles, tomography_of
from cryobridge.jobs.inspection.report import NotReadyError
from helpers import run

POSES = {"rlnAngleRot": 10.0, "rlnAngleTilt": 20.0, "rlnAnglePsi": 30.0}
XYZ = {"rlnCoordinateX": 1.5, "rlnCoordinateY": 2.5, "rlnCoordinateZ": 3.5}
CENTRED = {"rlnCenteredCoordinateXAngst": 1.5, "rlnCenteredCoordinateYAngst": 2.5, "rlnCenteredCoordinateZAngst": 3.5}
OPTICS = {"rlnOpticsGroup": 1, "rlnVoltage": 300, "rlnImagePixelSize": 2.7, "rlnImageSize": 32}


def star(path, main, optics=None, general=None, block="particles", n=3):
    """A file whose values are the same in each row, but for ``{n}`` in texts, which is the number of the row."""
    text = ""
    if general:
        text += "\ndata_general\n\n" + "".join(f"_{name} {value}\n" for name, value in general.items())
    for name, columns, rows in (("optics", optics, 1), (block, main, n)):
        if columns:
            head = "".join(f"_{label} #{place}\n" for place, label in enumerate(columns, 1))
            lines = [" ".join(str(value).format(n=row) for value in columns.values()) for row in range(1, rows + 1)]
            text += f"\ndata_{name}\n\nloop_\n{head}" + "\n".join(lines) + "\n\n"
    path.write_text(text)
    return path


RELION_4 = {"rlnTomoTiltSeriesPixelSize": 1.35, "rlnImageDimensionality": 3, **OPTICS}
LAYOUTS = {
    "RELION 5, 2D stacks": (
        {"rlnTomoName": "ts1", "rlnImageName": "Extract/job012/ts1/{n}_stack2d.mrcs", **CENTRED, **POSES},
        {"rlnTomoTiltSeriesPixelSize": 1.35, "rlnImageDimensionality": 2, **OPTICS},
        {"rlnTomoSubTomosAre2DStacks": 1},
        ("subtomograms as stacks of 2D images", "RELION 5"),
    ),
    "RELION 5, volumes": (
        {"rlnTomoName": "ts1", "rlnImageName": "Extract/job012/ts1/{n}_data.mrc", **CENTRED, **POSES},
        RELION_4,
        {"rlnTomoSubTomosAre2DStacks": 0},
        ("subtomograms", "RELION 5"),
    ),
    "RELION 4": (
        {"rlnTomoParticleName": "ts1/{n}", "rlnImageName": "PseudoSubtomo/job005/{n}_data.mrc", **XYZ, **POSES},
        RELION_4,
        None,
        ("subtomograms", "RELION 4 or later"),
    ),
    "Warp": (
        {"rlnMicrographName": "ts1.tomostar", "rlnImageName": "sub/{n}.mrc", "rlnCtfImage": "sub/{n}_ctf.mrc", **XYZ},
        None,
        None,
        ("subtomograms", "Warp"),
    ),
    "RELION 3 by Dynamo": (
        {"rlnMicrographName": "rec/ts1.mrc", "rlnImageName": "sub/{n}.mrc", "rlnOriginZ": 0.5, **XYZ, **POSES},
        None,
        None,
        ("subtomograms", "RELION 3, Warp or Dynamo"),
    ),
    "M": (
        {"wrpSourceName": "ts1.tomostar", "wrpCoordinateX1": 1.5, "wrpCoordinateY1": 2.5, "wrpAngleRot1": 1.5},
        None,
        None,
        ("places in tomograms", "M"),
    ),
    "PyTom": (
        {"rlnTomoName": "ts1", "ptmX": 3, "rlnLCCmax": 0.3, **XYZ, **POSES},
        None,
        None,
        ("places in tomograms", "PyTom"),
    ),
    "tomograms": (
        {"rlnTomoName": "ts{n}", "rlnTomoTiltSeriesStarFile": "ts{n}.star", "rlnTomoSizeX": 4000},
        None,
        None,
        ("a list of tomograms", "RELION 4 or later"),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_shown_serves_nothing_and_is_refused_by_its_name(layout, tmp_path):
    main_block, optics, general, expected = LAYOUTS[layout]
    path = star(tmp_path / "particles.star", main_block, optics, general)
    found = tomography_of(open_star(path))
    assert (found.what, found.program) == expected
    for options in ({}, {"statistics": False}):
        shown = cb.inspect(path, **options)
        assert shown.rows == 3
        assert [field.name for field in shown.fields] == list(main_block)
        assert expected[0] in shown.title
        assert shown.uses and not any(use.ready for use in shown.uses)
        assert any("subtomograms are not supported" in str(message) for message in shown.warnings)
    with pytest.raises(FormatError, match="subtomograms are not supported") as caught:
        cb.read(path)
    assert "from 1" not in caught.value.hint
    with pytest.raises(NotReadyError, match=r"not ready for poses: it holds .*; subtomograms are not supported"):
        cb.inspect(path, statistics=False, check=("poses",))


def test_showing_is_no_fault_and_a_check_fails(tmp_path):
    path = star(tmp_path / "particles.star", *LAYOUTS["RELION 4"][:3])
    assert run("inspect", path).returncode == 0
    assert run("inspect", "--no-stats", "--check", "poses", path).returncode == 3


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "{path}", "-o", "x.cs"),
        ("convert", "{path}", "-o", "pickles", "--to", "pickles"),
        ("select", "{path}", "--where", "rlnAngleRot > 1", "-o", "s.star"),
        ("stacks", "downsample", "{path}", "-D", "8", "-o", "small"),
        ("stacks", "star", "{path}", "-o", "polar"),
        ("coords", "{path}", "{path}", "-o", "picks"),
    ],
)
def test_every_command_says_that_subtomograms_are_not_supported(words, tmp_path):
    path = star(tmp_path / "particles.star", *LAYOUTS["RELION 4"][:3])
    done = run(*(word.format(path=path) for word in words), cwd=tmp_path)
    assert done.returncode in {1, 2}
    assert "subtomograms are not supported" in done.stderr
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "columns",
    [
        {"rlnImageName": "{n}@a.mrcs", "rlnCtfImage": "ctf/a.mrc", "rlnMicrographName": "a.mrc"},
        {"rlnImageName": "{n}@a.mrcs", "rlnOriginZ": 0.0},
        {"rlnImageName": "{n}@a.mrcs", "rlnMicrographName": "ts1.tomostar", **XYZ},
    ],
)
def test_images_in_stacks_are_no_subtomograms(columns, tmp_path):
    path = star(tmp_path / "particles.star", columns)
    assert tomography_of(open_star(path)) is None
    assert len(cb.read(path)) == 3


def test_one_odd_name_hides_no_file_of_either_kind(tmp_path):
    single = star(tmp_path / "single.star", {"rlnImageName": "{n}@a.mrcs", **POSES})
    single.write_text(single.read_text().replace("2@a.mrcs", "a.mrcs"))
    for options in ({}, {"statistics": False}):
        found = cb.inspect(single, **options)
        assert (found.rows, len(found.fields)) == (3, 4)
        assert [str(message) for message in found.warnings] == [
            "rlnImageName: row 1: image name 'a.mrcs' is not number@stack"
        ]
        assert not found.is_ready("poses")
    tomo = star(tmp_path / "tomo.star", *LAYOUTS["RELION 4"][:3])
    tomo.write_text(tomo.read_text().replace("PseudoSubtomo/job005/2_data.mrc", "2@odd.mrcs"))
    assert tomography_of(open_star(tomo)).what == "subtomograms"


@pytest.mark.parametrize(
    ("columns", "n_particles"),
    [
        ({"rlnGroupName": "g1", **XYZ}, 1),
        ({"rlnGroupName": "g1", "rlnCtfBfactor": "-{n}", "rlnCtfScalefactor": 1.0}, 1),
        ({"rlnGroupName": "g1", "rlnCoordinateX": "1{n}", "rlnCoordinateY": 2.0}, None),
        ({"rlnGroupName": "g1"}, None),
        ({"rlnGroupName": "g{n}", **XYZ}, None),
        (XYZ, None),
    ],
)
def test_rows_of_one_group_at_one_place_are_tilts_of_one_particle(columns, n_particles, tmp_path):
    path = star(tmp_path / "tilts.star", {"rlnImageName": "{n}@a.mrcs", **columns})
    block = open_star(path)["particles"]
    assert tilted_particles(block) == n_particles
    texts = [str(message) for message in cb.inspect(path).notes]
    said = "rows of one rlnGroupName are tilts of one particle: 1 particle in 3 rows"
    assert (said in texts) == (n_particles is not None)
