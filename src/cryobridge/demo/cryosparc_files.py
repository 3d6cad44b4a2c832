"""The simulated data as a cryoSPARC project: movies (J1), motion correction (J2), extraction (J3), refinement (J4)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from cryobridge.demo.images import gain_reference
from cryobridge.demo.motion import write_tiff, write_trajectories
from cryobridge.demo.truth import BOX_PX, MICROGRAPH_SHAPE_PX, N_FRAMES, PIXEL_SIZE_A
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.cryosparc.csg import write_csg
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.jobs.output_folder import make_folder
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.demo.images import Recording
    from cryobridge.demo.truth import Truth
    from cryobridge.formats.table import Values
    from cryobridge.model.particles import Floats

_VERSION = "v4.4.1"
_LAST_ITERATION = 3
MAIN_NAME = f"J4_{_LAST_ITERATION:03d}_particles.cs"
EARLIER_NAME = f"J4_{_LAST_ITERATION - 1:03d}_particles.cs"
PASSTHROUGH_NAME = "J4_passthrough_particles.cs"
GROUP_NAME = "J4_particles.csg"
EXTRACTED_NAME = "extracted_particles.cs"
EXPOSURES_NAME = "J2_exposures.cs"
IMPORTED_NAME = "imported_movies.cs"
_GAIN = "J1/imported/gain.tif"
_DESCRIPTION = "All particles that were processed, including alignments"
_EXPOSURE_GROUP = 1
_DOSE_E_A2 = 50.0
# Slot -> the columns that cryoSPARC requires of it. The first three are computed by the job, the others passed through.
_COMPUTED = {
    "blob": [["path", "O"], ["idx", "u4"], ["shape", "2u4"], ["psize_A", "f4"], ["sign", "f4"], ["import_sig", "u8"]],
    "ctf": [["type", "O"], ["exp_group_id", "u4"], ["accel_kv", "f4"], ["cs_mm", "f4"], ["amp_contrast", "f4"]],
    "alignments3D": [["split", "u4"], ["shift", "2f4"], ["pose", "3f4"], ["psize_A", "f4"]],
}
_PASSED_THROUGH = {
    "location": [["micrograph_uid", "u8"], ["micrograph_path", "O"], ["center_x_frac", "f4"], ["center_y_frac", "f4"]],
    "pick_stats": [["ncc_score", "f4"], ["power", "f4"], ["template_idx", "u4"], ["angle_rad", "f4"]],
}


_MOVIES = {
    "movie_blob": [["path", "O"], ["shape", "3u4"], ["psize_A", "f4"], ["is_gain_corrected", "u4"], ["format", "O"]],
    "gain_ref_blob": [["path", "O"], ["idx", "u4"], ["shape", "2u4"], ["flip_x", "u4"], ["flip_y", "u4"]],
    "mscope_params": [["accel_kv", "f4"], ["cs_mm", "f4"], ["total_dose_e_per_A2", "f4"], ["exp_group_id", "u4"]],
}
_EXPOSURES = {
    **_MOVIES,
    "rigid_motion": [["path", "O"], ["idx", "u4"], ["frame_start", "u4"], ["frame_end", "u4"], ["psize_A", "f4"]],
    "spline_motion": [["path", "O"], ["idx", "u4"], ["psize_A", "f4"]],
    "micrograph_blob": [["path", "O"], ["idx", "u4"], ["shape", "2u4"], ["psize_A", "f4"], ["format", "O"]],
    "ctf": _COMPUTED["ctf"],
    "ctf_stats": [["cross_corr", "f4"], ["ctf_fit_to_A", "f4"], ["ice_thickness_rel", "f4"]],
}


@dataclass(frozen=True)
class FitStatistics:
    """How well each image agrees with its own projection, (n,) each: sums over the pixels of the box."""

    image_power: Floats
    slice_power: Floats
    cross_correlation: Floats

    @classmethod
    def of(cls, recording: Recording) -> FitStatistics:
        """Compare a recording's images with their noise-free signal."""
        images, signal = recording.images.astype(np.float64), recording.signal
        image_power, slice_power, cross = (
            np.einsum("nyx,nyx->n", a, b) for a, b in ((images, images), (signal, signal), (images, signal))
        )
        return cls(image_power, slice_power, cross)

    @classmethod
    def concatenate(cls, parts: list[FitStatistics]) -> FitStatistics:
        """Join the statistics of several micrographs."""
        names = ("image_power", "slice_power", "cross_correlation")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def micrograph_name(truth: Truth, micrograph: int) -> str:
    """Return a micrograph's path in the project."""
    return f"J2/motioncorrected/{_stem(truth, micrograph)}.mrc"


def stack_name(truth: Truth, micrograph: int) -> str:
    """Return the path in the project of a micrograph's particle stack; a stack, although its suffix is ``.mrc``."""
    return f"J3/extract/{_stem(truth, micrograph)}_particles.mrc"


def movie_name(truth: Truth, micrograph: int) -> str:
    """Return a movie's path in the project."""
    return f"J1/imported/{_movie_stem(truth, micrograph)}.tif"


def _stem(truth: Truth, micrograph: int) -> str:
    return f"{_movie_stem(truth, micrograph)}_patch_aligned_doseweighted"


def _movie_stem(truth: Truth, micrograph: int) -> str:
    micrographs = truth.micrographs
    return f"{micrographs.uid[micrograph]:021d}_{micrographs.name[micrograph]}_fractions"


def write_recording(project: Path, truth: Truth, micrograph: int, recording: Recording) -> None:
    """Write a movie and its motion, the micrograph and its particle stack."""
    for name, sections in (
        (micrograph_name(truth, micrograph), recording.micrograph[np.newaxis]),
        (stack_name(truth, micrograph), recording.images),
    ):
        path = project / name
        make_folder(path.parent)
        write_mrc_stack(path, sections, PIXEL_SIZE_A)
    movie = project / movie_name(truth, micrograph)
    make_folder(movie.parent)
    write_tiff(movie, recording.frames)
    corrected = (project / micrograph_name(truth, micrograph)).parent
    write_trajectories(corrected, _movie_stem(truth, micrograph), truth.micrographs.motion[micrograph])


def write_movies(project: Path, truth: Truth, seed: int) -> None:
    """Write what J1, the import, says of the movies: a `.cs` file, ``job.json`` and the gain reference."""
    n = len(truth.micrographs)
    write_tiff(project / _GAIN, gain_reference(seed)[np.newaxis])
    write_cs(project / "J1" / IMPORTED_NAME, {"uid": truth.micrographs.uid, **_movies(truth), **_microscope(truth)})
    results = _results("J1", "exposure", _MOVIES, IMPORTED_NAME, n)
    _write_job(project, "J1", "import_movies", "Import of simulated movies", results, children=["J2"])


def write_extraction(project: Path, truth: Truth, statistics: FitStatistics) -> None:
    """Write what J3, the extraction, says of the particles that J4 was made from: its `.cs` file and ``job.json``."""
    job = project / "J3"
    make_folder(job)
    images = {**_blob(truth), **_ctf(truth)}
    places = {**_location(truth), **_pick_stats(truth, statistics)}
    write_cs(job / EXTRACTED_NAME, {"uid": truth.particles.uid, **images, **places})
    n = len(truth.particles)
    slots = {**{name: _COMPUTED[name] for name in ("blob", "ctf")}, **_PASSED_THROUGH}
    title = "Extraction of simulated particles"
    results = _results("J3", "particle", slots, EXTRACTED_NAME, n)
    _write_job(project, "J3", "extract_micrographs_multi", title, results, children=["J4"])


def _results(job: str, kind: str, slots: Mapping[str, list[list[str]]], file: str, n_rows: int) -> list[dict[str, Any]]:
    """Return the results of a job that writes one file."""
    return [
        {
            "uid": f"{job}-R{number}",
            "type": f"{kind}.{name}",
            "group_name": f"{kind}s",
            "name": name,
            "title": f"{kind.capitalize()} {name}",
            "min_fields": fields,
            "versions": [0],
            "metafiles": [f"{job}/{file}"],
            "num_items": [n_rows],
            "passthrough": False,
        }
        for number, (name, fields) in enumerate(slots.items())
    ]


def _write_job(
    project: Path, job: str, job_type: str, title: str, results: list[dict[str, Any]], *, children: list[str]
) -> None:
    """Write the ``job.json`` of a job with one result group."""
    kind, group = results[0]["type"].partition(".")[0], results[0]["group_name"]
    content = {
        "uid": job,
        "project_uid": "P1",
        "type": job_type,
        "job_type": job_type,
        "title": title,
        "status": "completed",
        "version": _VERSION,
        "parents": [],
        "children": children,
        "params_spec": {},
        "input_slot_groups": [],
        "output_result_groups": [
            {
                "uid": f"{job}-G0",
                "type": kind,
                "name": group,
                "title": title,
                "num_items": results[0]["num_items"][0],
            }
        ],
        "output_results": results,
    }
    _write_json(project / job / "job.json", content)


def write_exposures(project: Path, truth: Truth) -> None:
    """Write what J2, the motion correction, says of the micrographs and their CTF: a `.cs` file and ``job.json``."""
    micrographs, microscope, ctf = truth.micrographs, truth.microscope, truth.micrographs.ctf
    n = len(micrographs)
    columns: dict[str, Values] = {
        "uid": micrographs.uid,
        **_movies(truth),
        **_motion(truth),
        "micrograph_blob/path": Labels.of(micrograph_name(truth, row) for row in range(n)),
        "micrograph_blob/idx": _same(n, 0, "<u4"),
        "micrograph_blob/shape": _same(n, list(MICROGRAPH_SHAPE_PX), "<u4"),
        "micrograph_blob/psize_A": _same(n, PIXEL_SIZE_A),
        "micrograph_blob/format": Labels.of(["MRC/1"] * n),
        **_microscope(truth),
        "ctf/type": Labels.of(["spline"] * n),
        "ctf/exp_group_id": _same(n, _EXPOSURE_GROUP, "<u4"),
        "ctf/accel_kv": _same(n, microscope.voltage_kV),
        "ctf/cs_mm": _same(n, microscope.spherical_aberration_mm),
        "ctf/amp_contrast": _same(n, microscope.amplitude_contrast),
        "ctf/df1_A": ctf.defocus_u_A.astype(np.float32),
        "ctf/df2_A": ctf.defocus_v_A.astype(np.float32),
        "ctf/df_angle_rad": ctf.defocus_angle_rad.astype(np.float32),
        "ctf/phase_shift_rad": _same(n, 0.0),
        # Of a fit that nobody made, as the simulated RELION project has it.
        "ctf_stats/cross_corr": np.linspace(0.12, 0.18, n, dtype="<f4"),
        "ctf_stats/ctf_fit_to_A": np.linspace(4.2, 3.6, n, dtype="<f4"),
        "ctf_stats/ice_thickness_rel": np.linspace(1.02, 1.12, n, dtype="<f4"),
    }
    make_folder(project / "J2")
    write_cs(project / "J2" / EXPOSURES_NAME, columns)
    results = _results("J2", "exposure", _EXPOSURES, EXPOSURES_NAME, n)
    title = "Motion correction and CTF of simulated movies"
    _write_job(project, "J2", "patch_motion_correction_multi", title, results, children=["J3"])


def _movies(truth: Truth) -> dict[str, Values]:
    n = len(truth.micrographs)
    return {
        "movie_blob/path": Labels.of(movie_name(truth, row) for row in range(n)),
        "movie_blob/shape": _same(n, [N_FRAMES, *MICROGRAPH_SHAPE_PX], "<u4"),
        "movie_blob/psize_A": _same(n, PIXEL_SIZE_A),
        "movie_blob/is_gain_corrected": _same(n, 0, "<u4"),
        "movie_blob/format": Labels.of(["TIFF"] * n),
        "gain_ref_blob/path": Labels.of([_GAIN] * n),
        "gain_ref_blob/idx": _same(n, 0, "<u4"),
        "gain_ref_blob/shape": _same(n, list(MICROGRAPH_SHAPE_PX), "<u4"),
        **{f"gain_ref_blob/{turn}": _same(n, 0, "<u4") for turn in ("flip_x", "flip_y", "rotate_num")},
    }


def _motion(truth: Truth) -> dict[str, Values]:
    n = len(truth.micrographs)
    columns: dict[str, Values] = {}
    for group, end in (("rigid_motion", "rigid"), ("spline_motion", "bending")):
        names = [f"J2/motioncorrected/{_movie_stem(truth, row)}_{end}_traj.npy" for row in range(n)]
        columns |= {f"{group}/path": Labels.of(names), f"{group}/idx": _same(n, 0, "<u4")}
        columns |= {f"{group}/frame_start": _same(n, 0, "<u4"), f"{group}/frame_end": _same(n, N_FRAMES, "<u4")}
        columns |= {f"{group}/zero_shift_frame": _same(n, 0, "<u4"), f"{group}/psize_A": _same(n, PIXEL_SIZE_A)}
    return columns


def _microscope(truth: Truth) -> dict[str, Values]:
    n, microscope = len(truth.micrographs), truth.microscope
    return {
        "mscope_params/accel_kv": _same(n, microscope.voltage_kV),
        "mscope_params/cs_mm": _same(n, microscope.spherical_aberration_mm),
        "mscope_params/total_dose_e_per_A2": _same(n, _DOSE_E_A2),
        "mscope_params/exp_group_id": _same(n, _EXPOSURE_GROUP, "<u4"),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_refinement(project: Path, truth: Truth, statistics: FitStatistics, seed: int) -> None:
    """Write J4, a homogeneous refinement: its `.cs` files, the result group and ``job.json``."""
    job = project / "J4"
    make_folder(job)
    rng = np.random.default_rng([seed, 0])
    particles, n = truth.particles, len(truth.particles)
    images = {**_blob(truth), **_ctf(truth)}
    # The iteration before the last was some degrees and a pixel off.
    turn = Rotation.from_rotvec(rng.normal(0.0, np.radians(3.0), (n, 3)))
    earlier_pose = (turn * Rotation.from_rotvec(particles.pose_rotvec)).as_rotvec()
    earlier_shift_px = particles.shift_px + rng.normal(0.0, 1.0, (n, 2))
    for name, pose, shift_px in (
        (EARLIER_NAME, earlier_pose, earlier_shift_px),
        (MAIN_NAME, particles.pose_rotvec, particles.shift_px),
    ):
        alignment = _alignments(truth, statistics, pose, shift_px)
        write_cs(job / name, {"uid": particles.uid, **images, **alignment})
    passthrough = {"uid": particles.uid, **_location(truth), **_pick_stats(truth, statistics)}
    order = rng.permutation(n)
    write_cs(job / PASSTHROUGH_NAME, {name: _reordered(values, order) for name, values in passthrough.items()})
    slots = {name: (f"particle.{name}", MAIN_NAME) for name in _COMPUTED}
    slots |= {name: (f"particle.{name}", PASSTHROUGH_NAME) for name in _PASSED_THROUGH}
    write_csg(job / GROUP_NAME, slots, n, title="All particles", description=_DESCRIPTION, version=_VERSION)
    _write_json(job / "job.json", _job_description(n))


def _reordered(values: Values, order: NDArray[np.int64]) -> Values:
    return values.take(order) if isinstance(values, Labels) else values[order]


def _same(n: int, value: float | list[float], dtype: str = "<f4") -> NDArray[Any]:
    """Return a column of one value, (n, …)."""
    return np.tile(np.asarray(value, dtype), (n,) + (1,) * np.ndim(value))


def _labels(truth: Truth, values: list[str]) -> Labels:
    """Return a text of each micrograph as a column of the particles."""
    return Labels(truth.particles.micrograph.astype(np.int32), tuple(values))


def _blob(truth: Truth) -> dict[str, Values]:
    n = len(truth.particles)
    paths = [stack_name(truth, row) for row in range(len(truth.micrographs))]
    return {
        "blob/path": _labels(truth, paths),
        "blob/idx": truth.particles.stack_index.astype(np.uint32),
        "blob/shape": _same(n, [BOX_PX, BOX_PX], "<u4"),
        "blob/psize_A": _same(n, PIXEL_SIZE_A),
        "blob/sign": _same(n, -1.0),
        "blob/import_sig": _same(n, 0, "<u8"),
    }


def _ctf(truth: Truth) -> dict[str, Values]:
    n, ctf, microscope = len(truth.particles), truth.particles.ctf, truth.microscope
    return {
        "ctf/type": Labels(np.zeros(n, np.int32), ("spline",)),
        "ctf/exp_group_id": _same(n, _EXPOSURE_GROUP, "<u4"),
        "ctf/accel_kv": _same(n, microscope.voltage_kV),
        "ctf/cs_mm": _same(n, microscope.spherical_aberration_mm),
        "ctf/amp_contrast": _same(n, microscope.amplitude_contrast),
        "ctf/df1_A": ctf.defocus_u_A.astype(np.float32),
        "ctf/df2_A": ctf.defocus_v_A.astype(np.float32),
        "ctf/df_angle_rad": ctf.defocus_angle_rad.astype(np.float32),
        "ctf/phase_shift_rad": _same(n, 0.0),
        "ctf/scale": _same(n, 1.0),
        "ctf/scale_const": _same(n, 0.0),
        "ctf/shift_A": _same(n, [0.0] * 2),
        "ctf/tilt_A": _same(n, [0.0] * 2),
        "ctf/trefoil_A": _same(n, [0.0] * 2),
        "ctf/tetra_A": _same(n, [0.0] * 4),
        "ctf/anisomag": _same(n, [0.0] * 4),
        "ctf/bfactor": _same(n, 0.0),
    }


def _alignments(
    truth: Truth, statistics: FitStatistics, pose: NDArray[np.floating[Any]], shift_px: NDArray[np.floating[Any]]
) -> dict[str, Values]:
    n = len(truth.particles)
    error = statistics.image_power - 2.0 * statistics.cross_correlation + statistics.slice_power
    columns: dict[str, Values] = {
        "split": (truth.particles.half_set - 1).astype(np.uint32),
        "shift": shift_px.astype(np.float32),
        "pose": pose.astype(np.float32),
        "psize_A": _same(n, PIXEL_SIZE_A),
        "error": error.astype(np.float32),
        "error_min": error.astype(np.float32),
        "resid_pow": error.astype(np.float32),
        "slice_pow": statistics.slice_power.astype(np.float32),
        "image_pow": statistics.image_power.astype(np.float32),
        "cross_cor": statistics.cross_correlation.astype(np.float32),
        "alpha": _same(n, 1.0),
        "alpha_min": _same(n, 1.0),
        "weight": _same(n, 0.0),
        "pose_ess": _same(n, 0.0),
        "shift_ess": _same(n, 0.0),
        "class_posterior": _same(n, 1.0),
        "class": _same(n, 0, "<u4"),
        "class_ess": _same(n, 1.0),
    }
    return {f"alignments3D/{name}": values for name, values in columns.items()}


def _location(truth: Truth) -> dict[str, Values]:
    n, particles = len(truth.particles), truth.particles
    paths = [micrograph_name(truth, row) for row in range(len(truth.micrographs))]
    return {
        "location/micrograph_uid": truth.micrographs.uid[particles.micrograph],
        "location/exp_group_id": _same(n, _EXPOSURE_GROUP, "<u4"),
        "location/micrograph_path": _labels(truth, paths),
        "location/micrograph_shape": _same(n, list(MICROGRAPH_SHAPE_PX), "<u4"),
        "location/micrograph_psize_A": _same(n, PIXEL_SIZE_A),
        "location/center_x_frac": particles.fraction[:, 0],
        "location/center_y_frac": particles.fraction[:, 1],
    }


def _pick_stats(truth: Truth, statistics: FitStatistics) -> dict[str, Values]:
    n = len(truth.particles)
    score = statistics.cross_correlation / np.sqrt(statistics.image_power * statistics.slice_power)
    return {
        "pick_stats/ncc_score": score.astype(np.float32),
        "pick_stats/power": statistics.slice_power.astype(np.float32),
        "pick_stats/template_idx": _same(n, 0, "<u4"),
        "pick_stats/angle_rad": _same(n, 0.0),
    }


def _job_description(n_particles: int) -> dict[str, Any]:
    """Return ``job.json`` in the layout of cryoSPARC 3 and 4."""
    results = [_result(number, name, n_particles) for number, name in enumerate([*_COMPUTED, *_PASSED_THROUGH])]
    shared = ("uid", "type", "group_name", "name", "passthrough")
    return {
        "uid": "J4",
        "uid_num": 4,
        "project_uid": "P1",
        "workspace_uids": ["W1"],
        "type": "homo_refine_new",
        "job_type": "homo_refine_new",
        "title": "Homogeneous Refinement of simulated particles",
        "description": "",
        "status": "completed",
        "version": _VERSION,
        "parents": ["J3"],
        "children": [],
        "params_spec": {},
        "input_slot_groups": [
            {
                "type": "particle",
                "name": "particles",
                "title": "Particle stacks",
                "connections": [{"job_uid": "J3", "group_name": "particles", "slots": []}],
            }
        ],
        "output_result_groups": [
            {
                "uid": "J4-G0",
                "type": "particle",
                "name": "particles",
                "title": "All particles",
                "description": _DESCRIPTION,
                "contains": [{key: result[key] for key in shared} for result in results],
                "passthrough": "particles",
                "num_items": n_particles,
                "summary": {},
            }
        ],
        "output_results": results,
    }


def _result(number: int, name: str, n_particles: int) -> dict[str, Any]:
    passthrough = name in _PASSED_THROUGH
    versions = [0] if passthrough else [_LAST_ITERATION - 1, _LAST_ITERATION]
    files = [PASSTHROUGH_NAME] if passthrough else [EARLIER_NAME, MAIN_NAME]
    return {
        "uid": f"J4-R{number}",
        "type": f"particle.{name}",
        "group_name": "particles",
        "name": name,
        "title": f"Particle {name}",
        "description": "",
        "min_fields": (_PASSED_THROUGH if passthrough else _COMPUTED)[name],
        "versions": versions,
        "metafiles": [f"J4/{file}" for file in files],
        "num_items": [n_particles] * len(files),
        "passthrough": passthrough,
    }
