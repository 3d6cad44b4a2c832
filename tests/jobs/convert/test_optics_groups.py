"""Optics groups that are made by names, beam shifts or another file while particles are converted."""

import numpy as np
import pytest

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.convert.options import ConvertOptions
from helpers import codes, particle_columns, save_cs, texts
from relion_grammar import read_block

UID = "000090334788266266069_"
N = 240


def names(ends):
    """The movie of each particle: four places in turn, two particles of each micrograph."""
    return [
        f"{UID}FoilHole_{1000 + n // 2}_Data_5_{n // 2 % 4 + 1}_20240101_{n // 2:06d}_fractions{ends}" for n in range(N)
    ]


@pytest.fixture
def particles(tmp_path):
    def _particles(*, location=True, **changes):
        stacks = [f"J3/extract/{name}" for name in names("_particles.mrc")]
        columns = particle_columns(stacks, np.arange(N) % 2, ctf__exp_group_id=np.arange(N, dtype="u4") % 7)
        columns |= {name.replace("__", "/"): values for name, values in changes.items()}
        columns |= {
            "alignments3D/pose": np.zeros((N, 3), "f4"),
            "alignments3D/shift": np.zeros((N, 2), "f4"),
            "alignments3D/psize_A": np.full(N, 1.5, "f4"),
        }
        if location:
            averages = names("_patch_aligned_doseweighted.mrc")
            columns |= {"location/micrograph_path": [f"J2/motioncorrected/{name}" for name in averages]}
            columns |= {f"location/center_{axis}_frac": np.full(N, 0.5, "f4") for axis in "xy"}
            columns |= {"location/micrograph_shape": np.full((N, 2), 100, "u4")}
        return save_cs(tmp_path / "J4" / "particles.cs", columns)

    return _particles


def columns_of(star, name):
    labels, rows, _ = read_block(star.read_text(), name)
    return dict(zip(labels, map(list, zip(*rows, strict=True)), strict=True))


def groups_of(star):
    optics, rows = columns_of(star, "optics"), columns_of(star, "particles")
    names = dict(zip(optics["rlnOpticsGroup"], optics["rlnOpticsGroupName"], strict=True))
    return optics, [names[number] for number in rows["rlnOpticsGroup"]]


EXPECTED = [f"epu_5_{n // 2 % 4 + 1}" for n in range(N)]


@pytest.mark.parametrize("location", [True, False])
def test_groups_are_made_by_the_names_of_micrographs_or_stacks(particles, tmp_path, location):
    report = convert(particles(location=location), tmp_path / "p.star", optics_from="epu")
    optics, found = groups_of(tmp_path / "p.star")
    assert found == EXPECTED
    assert optics["rlnVoltage"] == ["300"] * 4
    assert report.optics_groups == 4
    assert "4 optics groups by names" in texts(report.notes)


def test_groups_are_made_of_relions_particles_too(particles, tmp_path):
    convert(particles(), tmp_path / "p.star")
    report = convert(tmp_path / "p.star", tmp_path / "q.star", optics_from=r"regex:_Data_\d+_(\d+)_")
    assert groups_of(tmp_path / "q.star")[1] == [name.removeprefix("epu_5_") for name in EXPECTED]
    assert report.optics_groups == 4


def test_groups_go_to_cryosparc_as_exposure_groups(particles, tmp_path):
    convert(particles(), tmp_path / "p.cs", optics_from="epu")
    ids = np.load(tmp_path / "p.cs")["ctf/exp_group_id"]
    assert ids.tolist() == [int(name[-1]) for name in EXPECTED]


def test_groups_with_several_values_are_split(particles, tmp_path):
    tilt = np.zeros((N, 2), "f4")
    tilt[:60] = 4000
    report = convert(particles(ctf__tilt_A=tilt), tmp_path / "p.star", optics_from="epu")
    assert report.optics_groups == 8
    assert "optics-groups-split" in codes(report.warnings)


def test_beam_shifts_are_read_of_a_folder(particles, tmp_path):
    for name in set(names(".xml")):
        x = int(name.split("_")[5]) % 2
        path = tmp_path / "EPU" / name.removeprefix(UID).replace("_fractions", "")
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "<MicroscopeImage><microscopeData><optics><BeamShift>"
            f"<_x>{x}</_x><_y>0</_y></BeamShift></optics></microscopeData></MicroscopeImage>"
        )
    report = convert(particles(), tmp_path / "p.star", optics_from=f"afis:{tmp_path / 'EPU'}")
    assert groups_of(tmp_path / "p.star")[1] == [f"afis_{2 - n // 2 % 2}" for n in range(N)]
    assert "2 optics groups by the beam shifts in 120 files; each of one" in texts(report.notes)
    with pytest.raises(MissingDataError, match="no beam shift is known"):
        convert(particles(), tmp_path / "q.star", optics_from="afis")


def test_groups_are_taken_of_another_file(particles, tmp_path):
    convert(particles(), tmp_path / "epu.star", optics_from="epu")
    convert(particles(), tmp_path / "p.star", optics_from=tmp_path / "epu.star")
    assert groups_of(tmp_path / "p.star")[1] == EXPECTED


def test_the_file_that_has_the_groups_is_never_replaced(particles, tmp_path):
    convert(particles(), tmp_path / "epu.star", optics_from="epu")
    before = (tmp_path / "epu.star").read_bytes()
    with pytest.raises(UsageError, match="one of the inputs"):
        convert(particles(), tmp_path / "epu.star", optics_from=tmp_path / "epu.star", overwrite=True)
    assert (tmp_path / "epu.star").read_bytes() == before


@pytest.mark.parametrize("options", [{"to": "pickles"}, {"micrographs": "m.star"}])
def test_the_option_is_refused_where_it_would_do_nothing(particles, tmp_path, options):
    with pytest.raises(UsageError, match="optics_from= would do nothing here"):
        convert(particles(), tmp_path / ("p" if "to" in options else "p.star"), optics_from="epu", **options)


@pytest.mark.parametrize("options", [{"optics_groups": 4}, {"optics_groups": 4, "optics_from": "epu"}])
def test_a_number_of_groups_is_for_beam_shifts(options):
    with pytest.raises(UsageError, match="optics_groups= would do nothing here"):
        ConvertOptions(**options)


@pytest.mark.parametrize("value", ["EPU", "regex:(", "", 3])
def test_other_sources_are_refused(value):
    with pytest.raises(UsageError) as caught:
        ConvertOptions(optics_from=value)
    assert caught.value.option == "optics_from"
