from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from coords_files import as_seen_by_relion, convention_id, convert, flips, planned, tree
from cryobridge.demo import simulate_project
from cryobridge.demo.images import record, signal_scale
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.fourier.crop import crop_images
from cryobridge.jobs.micrographs import orientation
from cryobridge.jobs.micrographs.orientation_report import OrientationError
from cryobridge.model.convention import ALL_CONVENTIONS, Convention
from helpers import codes, save_star

SNR, N_MICROGRAPHS, N_PARTICLES = 0.05, 5, 100
DEFAULT = Convention()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """100 particles on 5 micrographs of 768 x 1024 pixels at an SNR of 0.05."""
    return simulate_project(
        tmp_path_factory.mktemp("snr"), n_micrographs=5, particles_per_micrograph=20, snr=SNR, seed=11
    )


@pytest.fixture(scope="module")
def recorded(project):
    return [np.array(open_mrc(path).images[0]) for path in project.cryosparc_micrographs]


def save_relion(folder, project, recorded, convention=DEFAULT, n=N_MICROGRAPHS):
    """A RELION project whose micrographs are cryoSPARC's as this axis convention has them."""
    names = [f"MotionCorr/job002/Movies/{name}_fractions.mrc" for name in project.truth.micrographs.name[:n]]
    for name, image in zip(names, recorded, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        seen = np.ascontiguousarray(as_seen_by_relion(image, convention), np.float32)
        write_mrc_stack(folder / name, seen[None], project.pixel_size_A)
    (folder / "default_pipeline.star").touch()
    return save_star(
        folder / "CtfFind" / "job003" / "micrographs_ctf.star", "micrographs", {"rlnMicrographName": names}
    )


def particles(project):
    """Columns of all particles: place, micrograph, extracted image."""
    picked, images = open_cs(project.passthrough_cs), open_cs(project.particles_cs)
    place, image = picked.read(picked.names), images.read(images.names)
    order = np.argsort(image["uid"])[np.searchsorted(np.sort(image["uid"]), place["uid"])]
    for name in ("blob/path", "blob/idx", "blob/shape", "blob/psize_A"):
        place[name] = image[name].take(order) if name == "blob/path" else image[name][order]
    return place


@pytest.fixture(scope="module")
def without_images(project):
    path = project.cryosparc / "J8" / "picked_particles.cs"
    path.parent.mkdir()
    write_cs(path, {name: values for name, values in particles(project).items() if not name.startswith("blob/")})
    return path


def save_particles(project, name, make_images, pixel_size_A):
    """Picks whose images are made anew, `make_images(micrograph) -> (n, box, box)`."""
    columns = particles(project)
    for micrograph, stack in enumerate(columns["blob/path"].values):
        images = make_images(micrograph)
        path = project.cryosparc / stack.replace("J3/extract", f"{name}/extract")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mrc_stack(path, np.asarray(images, np.float32), pixel_size_A)
    labels = columns["blob/path"]
    columns["blob/path"] = type(labels)(
        labels.codes, tuple(stack.replace("J3/extract", f"{name}/extract") for stack in labels.values)
    )
    columns["blob/shape"] = np.full((len(labels), 2), images.shape[-1], "u4")
    columns["blob/psize_A"] = np.full(len(labels), pixel_size_A, "f4")
    path = project.cryosparc / name / "extracted_particles.cs"
    write_cs(path, columns)
    return path


def micrograph_of_stack(project, micrograph):
    """The truth's number of the micrograph that the stack with this number belongs to."""
    stack = particles(project)["blob/path"].values[micrograph]
    return next(number for number, name in enumerate(project.truth.micrographs.name) if name in stack)


@pytest.fixture(scope="module")
def independent(project):
    """Images with noise of their own: only the signal agrees with the micrographs."""
    scale = signal_scale(project.truth, SNR)
    rng = np.random.default_rng(5)

    def images(micrograph):
        number = micrograph_of_stack(project, micrograph)
        signal = record(project.truth, number, scale, 11).signal
        return signal + rng.standard_normal(signal.shape)

    return save_particles(project, "J20", images, project.pixel_size_A)


@pytest.fixture(scope="module")
def cropped(project):
    """Images on half as many pixels of twice the size."""
    paths = particles(project)["blob/path"].values

    def images(micrograph):
        whole = torch.from_numpy(np.array(open_mrc(project.cryosparc / paths[micrograph]).images[:]))
        return crop_images(whole, (48, 48), project.pixel_size_A)[0].numpy()

    return save_particles(project, "J21", images, 2 * project.pixel_size_A)


def check(picks, star, n=N_MICROGRAPHS, **options):
    asked = {"check_orientation": True, "check_micrographs": n, **options}
    return planned(picks, star, star.parent / "out", **asked).placement.check


@pytest.mark.parametrize("convention", ALL_CONVENTIONS, ids=convention_id)
def test_the_right_one_of_eight_is_found(convention, project, recorded, independent, cropped, without_images, tmp_path):
    star = save_relion(tmp_path, project, recorded, convention)
    for picks, method in (
        (project.particles_cs, "images"),
        (independent, "images"),
        (cropped, "images"),
        (without_images, "contrast"),
    ):
        found = check(picks, star)
        assert found.method == method
        assert found.is_sure, (picks, found.sigma)
        assert found.best == convention
        assert len(found.scores) == 8
        assert [score.score for score in found.scores] == sorted((s.score for s in found.scores), reverse=True)
        # Exchanged axes put some picks beyond the edge; no more than there are can be compared.
        assert all(0 < score.n_particles <= N_PARTICLES for score in found.scores)


def test_images_agree_with_the_right_convention_as_signal_and_noise_say(project, recorded, independent, tmp_path):
    star = save_relion(tmp_path, project, recorded)
    # The very same pixels correlate fully; with two noises the correlation is that of the signal, SNR / (1 + SNR).
    assert check(project.particles_cs, star).scores[0].score == pytest.approx(1, abs=0.02)
    assert check(independent, star).scores[0].score == pytest.approx(SNR / (1 + SNR), rel=0.35)


@pytest.mark.parametrize("seed", range(4))
def test_pure_noise_cannot_tell(seed, project, without_images, tmp_path):
    rng = np.random.default_rng(seed)
    star = save_relion(tmp_path, project, [rng.standard_normal((768, 1024)) for _ in range(N_MICROGRAPHS)])
    for picks in (project.particles_cs, without_images):
        found = check(picks, star)
        assert not found.is_sure
        assert found.sigma < 4


def test_a_single_micrograph_is_enough(project, recorded, independent, tmp_path):
    convention = Convention(mirror_x=True, mirror_y=False)
    star = save_relion(tmp_path, project, recorded, convention)
    for picks in (project.particles_cs, independent):
        found = check(picks, star, 1)
        assert found.is_sure
        assert found.best == convention
        assert max(score.n_particles for score in found.scores) <= 20


def test_too_few_picks_cannot_tell(project, recorded, tmp_path):
    columns = particles(project)
    few = {name: v.take(slice(0, 4)) if name.endswith("path") else v[:4] for name, v in columns.items()}
    write_cs(tmp_path / "few.cs", few)
    star = save_relion(tmp_path / "relion", project, recorded)
    assert not check(tmp_path / "few.cs", star).is_sure


def test_micrographs_of_another_size_or_absent_are_an_error(project, recorded, tmp_path, command):
    smaller = save_relion(tmp_path / "small", project, [image[:512, :512] for image in recorded])
    code, _, err = command("coords", project.particles_cs, smaller, "-o", tmp_path / "out", "--check-orientation")
    assert code == 1
    assert "512 × 512" in err
    assert "768 × 1024" in err
    (tmp_path / "absent").mkdir()
    absent = save_relion(tmp_path / "absent", project, [])
    for words in (("--check-orientation",), ("--strict-orientation",), ("--preview", 1)):
        code, out, err = command("coords", project.particles_cs, absent, "-o", tmp_path / "out", *words)
        assert (code, out) == (1, "")
        assert "_fractions.mrc is not there" in err
        assert "--relion-project" in err
        assert not (tmp_path / "out").exists()


def test_agreement_is_reported_and_disagreement_is_refused_or_forced(project, tmp_path, command):
    ask = ("coords", project.particles_cs, project.micrographs_star, "-o", tmp_path / "out", "--check-orientation")
    code, out, err = command(*ask)
    assert code == 0
    assert "fits, chosen" in out
    assert out.count("σ ahead") == 1
    assert "RELION's micrographs fit x = nx·fx, y = ny − ny·fy (by particle images, " in err
    assert err.count("fit") == 1
    code, out, err = command(*ask, "--flip-y", "--overwrite")
    assert code == 3
    assert "fit x = nx·fx, y = ny − ny·fy (by particle images" in err
    assert "Leave --flip-y out" in err
    code, out, err = command(*ask, "--flip-y", "--overwrite", "--force")
    assert code == 0
    assert "fit x = nx·fx, y = ny − ny·fy (by particle images" in err
    assert (tmp_path / "out" / "autopick.star").is_file()


@pytest.mark.parametrize("convention", ALL_CONVENTIONS, ids=convention_id)
def test_what_the_pixels_show_is_taken_unless_it_is_set_by_hand(convention, project, recorded, tmp_path):
    star = save_relion(tmp_path, project, recorded, convention)
    plan = planned(project.particles_cs, star, tmp_path / "out")
    assert plan.placement.convention == convention
    assert codes(plan.messages)[-1:] == ["orientation-found"]
    report = plan.report()
    assert (report.convention, report.convention_from) == (convention.formula, "pixels")
    by_hand = planned(project.particles_cs, star, tmp_path / "out", **flips(convention))
    np.testing.assert_array_equal(by_hand.coordinate_px, plan.coordinate_px)
    assert not by_hand.is_refused
    for asked, own in (("stored", Convention(mirror_y=False)), ("reliosparc", Convention())):
        plan = planned(project.particles_cs, star, tmp_path / "out", orientation=asked)
        assert plan.placement.convention == own
        assert plan.is_refused == (own != convention)
        forced = planned(project.particles_cs, star, tmp_path / "out", orientation=asked, force=True)
        assert not forced.is_refused


def test_without_particle_images_the_neighbourhood_of_picks_shows_it(project, recorded, without_images, tmp_path):
    star = save_relion(tmp_path, project, recorded, Convention(mirror_y=False))
    plan = planned(without_images, star, tmp_path / "out")
    assert plan.placement.convention == Convention(mirror_y=False)
    assert "by the contrast around picks" in plan.placement.message.text


def test_images_of_inverted_contrast_show_it_too(project, recorded, tmp_path):
    convention = Convention(mirror_y=False)
    star = save_relion(tmp_path, project, [-image for image in recorded], convention)
    plan = planned(project.particles_cs, star, tmp_path / "out")
    assert plan.placement.convention == convention
    assert plan.placement.check.scores[0].score == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("convention", [Convention(mirror_y=False), Convention(swap_xy=True)], ids=convention_id)
@pytest.mark.parametrize("which", ["same pixels", "own noise", "other pixel size"])
def test_it_is_found_with_large_images_that_are_binned_first(
    which, convention, project, recorded, independent, cropped, tmp_path, monkeypatch
):
    monkeypatch.setattr(orientation, "_LARGEST_BOX", 24)
    star = save_relion(tmp_path, project, recorded, convention)
    picks = {"same pixels": project.particles_cs, "own noise": independent, "other pixel size": cropped}[which]
    check = planned(picks, star, tmp_path / "out").placement.check
    assert check.is_sure
    assert check.best == convention


def test_some_micrographs_on_the_disk_are_enough(project, recorded, tmp_path):
    star = save_relion(tmp_path, project, recorded, Convention(mirror_y=False))
    for path in sorted((tmp_path / "MotionCorr").rglob("*.mrc"))[:3]:
        path.unlink()
    assert planned(project.particles_cs, star, tmp_path / "out").placement.source == "pixels"


def test_without_micrographs_reliosparcs_placement_is_kept_with_a_warning(project, tmp_path, command):
    star = save_relion(tmp_path, project, [])
    code, _, err = command("coords", project.particles_cs, star, "-o", tmp_path / "out")
    assert code == 0
    assert "! the orientation is unchecked, since RELION's micrographs are not on this disk: x = nx·fx, y = ny" in err
    for words in (("--orientation", "stored"), ("--orientation", "reliosparc"), ("--flip-x",)):
        code, out, err = command("coords", project.particles_cs, star, "-o", tmp_path / "out", *words, "--dry-run")
        assert code == 0
        assert "unchecked" not in err
        assert ("y = ny·fy" in out) == ("stored" in words)


@pytest.mark.parametrize(
    "words", [("stored", "--flip-x"), ("stored", "--flip-y", "--swap-xy"), ("reliosparc", "--flip-y"), ("else",)]
)
def test_an_orientation_and_flips_that_say_different_things_are_refused(words, project, tmp_path, command):
    ask = ("coords", project.particles_cs, project.micrographs_star, "-o", tmp_path / "out", "--orientation")
    code, _, err = command(*ask, *words)
    assert code == 2
    assert "--orientation" in err
    assert not (tmp_path / "out").exists()


def test_a_placement_by_hand_that_is_contradicted_writes_nothing(project, tmp_path, command):
    ask = ("coords", project.particles_cs, project.micrographs_star, "-o", tmp_path / "out")
    for words in (("--flip-x",), ("--flip-x", "--preview", 1), ("--orientation", "stored"), ("--swap-xy", "--dry-run")):
        code, out, err = command(*ask, *words)
        assert code == 3
        assert "Not written" in out
        assert "fits" in out
        assert "autopick.star" not in out
        assert "Raw_data" not in out
        assert f"Leave {words[0]} out, so that what fits is taken, or keep it with --force" in err
        assert not (tmp_path / "out").exists()
    assert command(*ask)[0] == 0
    before = tree(tmp_path / "out")
    assert command(*ask, "--swap-xy", "--overwrite")[0] == 3
    assert tree(tmp_path / "out") == before
    assert json.loads(command(*ask, "--swap-xy", "--overwrite", "--json")[1])["outputs"] == []
    with pytest.raises(OrientationError, match="nothing is written"):
        convert(project.particles_cs, project.micrographs_star, tmp_path / "out", flip_x=True, overwrite=True)
    assert tree(tmp_path / "out") == before


def test_a_check_that_cannot_tell_does_not_stand_in_the_way(project, tmp_path, command):
    rng = np.random.default_rng(0)
    star = save_relion(tmp_path / "relion", project, [rng.standard_normal((768, 1024)) for _ in range(5)])
    ask = ("coords", project.particles_cs, star, "-o", tmp_path / "out", "--overwrite")
    code, out, err = command(*ask, "--check-orientation")
    assert code == 0
    assert "uncertain" in out
    assert (
        "! the pixels of RELION's micrographs do not show which way they lie: x = nx·fx, y = ny − ny·fy is assumed"
        in err
    )
    code, out, err = command(*ask, "--flip-y", "--strict-orientation")
    assert code == 0
    assert "the pixels of RELION's micrographs do not show which way they lie" in err


def test_the_scores_are_in_the_json(project, tmp_path, command):
    words = ("-o", tmp_path / "out", "--check-orientation", "--check-micrographs", 2, "--flip-y", "--json", "--dry-run")
    code, out, _ = command("coords", project.particles_cs, project.micrographs_star, *words)
    verdict = json.loads(out)["orientation"]
    assert code == 3
    assert verdict["method"] == "images"
    assert verdict["best"] == "x = nx·fx, y = ny − ny·fy"
    assert verdict["sure"] is True
    assert verdict["agrees"] is False
    assert len({score["convention"] for score in verdict["scores"]}) == 8
    assert max(score["particles"] for score in verdict["scores"]) <= 40
