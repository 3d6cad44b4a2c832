"""Small files of cryoSPARC's exposures, as its jobs write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.model.particles import Labels

NY, NX, FRAMES = 48, 64, 10
PIXEL_SIZE_A = 0.8


def uids(n):
    return np.random.default_rng(5).integers(2**63, 2**64 - 1, n, dtype="u8")


def stems(n):
    return [f"{uid:021d}_grid1_{row:04d}" for row, uid in enumerate(uids(n))]


def same(n, value, dtype="f4"):
    return np.tile(np.asarray(value, dtype), (n,) + (1,) * np.ndim(value))


def movie_columns(n, gain="J1/imported/gain.mrc"):
    """What Import Movies writes."""
    columns = {
        "movie_blob/path": Labels.of(f"J1/imported/{stem}.tif" for stem in stems(n)),
        "movie_blob/shape": same(n, [FRAMES, 2 * NY, 2 * NX], "u4"),
        "movie_blob/psize_A": same(n, PIXEL_SIZE_A / 2),
        "movie_blob/is_gain_corrected": same(n, 0, "u4"),
        "movie_blob/format": Labels.of(["TIFF"] * n),
        "movie_blob/has_defect_file": same(n, 0, "u4"),
        "movie_blob/import_sig": same(n, 7, "u8"),
        "mscope_params/accel_kv": same(n, 300),
        "mscope_params/cs_mm": same(n, 2.7),
        "mscope_params/total_dose_e_per_A2": same(n, 50),
        "mscope_params/phase_plate": same(n, 0, "u4"),
        "mscope_params/neg_stain": same(n, 0, "u4"),
        "mscope_params/exp_group_id": np.arange(n, dtype="u4") % 2 + 3,
        "mscope_params/defect_path": Labels.of([""] * n),
    }
    if gain:
        columns |= {
            "gain_ref_blob/path": Labels.of([gain] * n),
            "gain_ref_blob/idx": same(n, 0, "u4"),
            "gain_ref_blob/shape": same(n, [2 * NY, 2 * NX], "u4"),
            "gain_ref_blob/flip_x": same(n, 0, "u4"),
            "gain_ref_blob/flip_y": same(n, 1, "u4"),
            "gain_ref_blob/rotate_num": same(n, 0, "u4"),
        }
    return columns


def motion_columns(n):
    """What Patch Motion Correction adds."""
    columns = {
        "micrograph_blob/path": Labels.of(
            f"J2/motioncorrected/{stem}_patch_aligned_doseweighted.mrc" for stem in stems(n)
        ),
        "micrograph_blob_non_dw/path": Labels.of(f"J2/motioncorrected/{stem}_patch_aligned.mrc" for stem in stems(n)),
    }
    for group in ("micrograph_blob", "micrograph_blob_non_dw"):
        columns |= {
            f"{group}/idx": same(n, 0, "u4"),
            f"{group}/shape": same(n, [NY, NX], "u4"),
            f"{group}/psize_A": same(n, PIXEL_SIZE_A),
            f"{group}/format": Labels.of(["MRC/1"] * n),
            f"{group}/is_background_subtracted": same(n, 1, "u4"),
        }
    for group, folder in (("rigid_motion", "rigid"), ("spline_motion", "bending")):
        columns |= {
            f"{group}/type": Labels.of([folder] * n),
            f"{group}/path": Labels.of(f"J2/motioncorrected/{stem}_{folder}_traj.npy" for stem in stems(n)),
            f"{group}/idx": same(n, 0, "u4"),
            f"{group}/frame_start": same(n, 0, "u4"),
            f"{group}/frame_end": same(n, FRAMES, "u4"),
            f"{group}/zero_shift_frame": same(n, 0, "u4"),
            f"{group}/psize_A": same(n, PIXEL_SIZE_A / 2),
        }
    return columns


def ctf_columns(n):
    """What Patch CTF Estimation adds."""
    defocus = np.linspace(9000, 18000, n, dtype="f4")
    return {
        "ctf/type": Labels.of(["spline"] * n),
        "ctf/path": Labels.of(f"J3/ctfestimated/{stem}_spline.npy" for stem in stems(n)),
        "ctf/exp_group_id": np.arange(n, dtype="u4") % 2 + 3,
        "ctf/accel_kv": same(n, 300),
        "ctf/cs_mm": same(n, 2.7),
        "ctf/amp_contrast": same(n, 0.1),
        "ctf/df1_A": defocus,
        "ctf/df2_A": defocus - 150,
        "ctf/df_angle_rad": np.linspace(-1.5, 1.4, n, dtype="f4"),
        "ctf/phase_shift_rad": same(n, 0),
        "ctf/scale": same(n, 1),
        "ctf/scale_const": same(n, 0),
        "ctf/cross_corr_ctffind4": np.linspace(0.1, 0.2, n, dtype="f4"),
        "ctf/ctf_fit_to_A": np.linspace(3.5, 4.5, n, dtype="f4"),
        "ctf_stats/type": Labels.of(["spline"] * n),
        "ctf_stats/cross_corr": np.linspace(0.1, 0.2, n, dtype="f4"),
        "ctf_stats/ctf_fit_to_A": np.linspace(3.5, 4.5, n, dtype="f4"),
        "ctf_stats/ice_thickness_rel": np.linspace(1.0, 1.2, n, dtype="f4"),
        "ctf_stats/fit_data_path": Labels.of(f"J3/ctfestimated/{stem}_fit.npy" for stem in stems(n)),
    }


def exposure_columns(n=4, gain="J1/imported/gain.mrc"):
    """Everything that exposures have after Patch CTF."""
    return {"uid": uids(n), **movie_columns(n, gain), **motion_columns(n), **ctf_columns(n)}


def write_averages(project, n=4, names=None):
    """Write the micrographs that `motion_columns` names: row y has values from 100 y on."""
    for row, stem in enumerate(stems(n)):
        for ending in ("patch_aligned_doseweighted", "patch_aligned"):
            path = Path(project) / f"J2/motioncorrected/{stem}_{ending}.mrc"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.arange(NY)[:, np.newaxis] * 100 + np.arange(NX) + row
            write_mrc_stack(path, pixels[np.newaxis].astype(np.float32), PIXEL_SIZE_A)


def write_project(project, n=4):
    """Write a project of J1 to J3; the exposures of J3 are in its own file and a passthrough in another order."""
    project = Path(project)
    columns = {"uid": uids(n)}
    write_averages(project, n)
    for job in ("J1", "J3"):
        (project / job).mkdir(exist_ok=True)
    write_cs(project / "J1/imported_movies.cs", columns | movie_columns(n))
    write_cs(project / "J2/micrographs.cs", columns | motion_columns(n))
    write_cs(project / "J3/exposures_ctf_estimated.cs", columns | ctf_columns(n))
    order = np.arange(n)[::-1].copy()
    passed = columns | movie_columns(n) | motion_columns(n)
    reordered = {
        name: values.take(order) if isinstance(values, Labels) else values[order] for name, values in passed.items()
    }
    write_cs(project / "J3/J3_passthrough_exposures_ctf_estimated.cs", reordered)
    results = [
        {
            "uid": f"J3-R{number}",
            "type": f"exposure.{slot}",
            "group_name": "exposures",
            "name": slot,
            "versions": [0],
            "metafiles": [f"J3/{file}"],
            "num_items": [n],
            "passthrough": file.startswith("J3_passthrough"),
        }
        for number, (slot, file) in enumerate(
            [
                ("ctf", "exposures_ctf_estimated.cs"),
                ("ctf_stats", "exposures_ctf_estimated.cs"),
                ("movie_blob", "J3_passthrough_exposures_ctf_estimated.cs"),
                ("micrograph_blob", "J3_passthrough_exposures_ctf_estimated.cs"),
            ]
        )
    ]
    content = {
        "uid": "J3",
        "type": "patch_ctf_estimation_multi",
        "status": "completed",
        "version": "v4.4.1",
        "output_result_groups": [{"uid": "J3-G0", "type": "exposure", "name": "exposures", "num_items": n}],
        "output_results": results,
        "input_slot_groups": [],
    }
    (project / "J3/job.json").write_text(json.dumps(content))
    return project
