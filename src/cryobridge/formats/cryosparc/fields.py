"""cryoSPARC's columns that the model has no place for: the quantity that each holds and what it means.

Quantities are keys of `cryobridge.model.fields.QUANTITIES`; the columns of the model are described there.

A column is called ``group/field``. Several groups share their fields, and some groups are numbered, so the groups
are given as regular expressions that match a whole name.
"""

from __future__ import annotations

from cryobridge.model.fields import ALIGNMENT

Fields = dict[str, tuple[str, str]]

_IMAGE: Fields = {
    "path": ("text", "File; relative to the project folder, or to the .cs file after a leading >"),
    "idx": ("count", "Slice in the file, counted from 0"),
    "shape": ("size_px", "ny, nx; of movies and maps with the number of frames or slices first"),
    "psize_A": ("pixel_size_A", "Pixel size of the stored image"),
    "sign": ("sign", "-1 for dark particles, 1 for bright ones"),
    "import_sig": ("identity", "Where the file was imported from"),
    "format": ("text", "File format"),
    "is_gain_corrected": ("flag", "The movie is gain-corrected"),
    "has_defect_file": ("flag", "There is a list of the detector's defects"),
    "is_background_subtracted": ("flag", "The background was subtracted"),
    "vmin": ("value", "Value to show as black"),
    "vmax": ("value", "Value to show as white"),
    "flip_x": ("flag", "The gain reference is to be flipped along x"),
    "flip_y": ("flag", "The gain reference is to be flipped along y"),
    "rotate_num": ("int", "Quarter turns of the gain reference"),
}

_CTF: Fields = {
    "type": ("text", "Where the CTF comes from, such as ctffind4, imported or spline"),
    "path": ("text", "File with the local CTF of a micrograph"),
    "scale_const": ("value", "Constant part of the scale, 0 or 1"),
    "fig_of_merit_gctf": ("value", "Score of Gctf's fit"),
    "fit_quality": ("value", "Quality of the fit"),
}

_CTF_STATS: Fields = {
    "type": ("text", "Where the CTF comes from"),
    "fit_data_path": ("text", "File with the fit"),
}

_LOCATION: Fields = {
    "micrograph_uid": ("identity", "uid of the micrograph"),
    "min_dist_A": ("length_A", "Least distance between picks"),
}

_PICKS: Fields = {
    "power": ("value", "Local power of the pick"),
    "template_idx": ("count", "Template, counted from 0"),
    "angle_rad": ("angle_rad", "Angle of the template in the plane"),
}

_FILAMENT: Fields = {
    "filament_pose": ("angle_rad", "Direction of the filament in the plane"),
    "inter_box_dist_A": ("length_A", "Distance between segments"),
    "curvature": ("value", "Curvature of the filament"),
    "sinuosity": ("value", "Length of the filament over the distance of its ends"),
}

# What cryoSPARC keeps of a fit; no other program does.
FIT: Fields = {
    "error": ("value", "Squared difference of image and projection"),
    "error_min": ("value", "Least error of all poses"),
    "resid_pow": ("value", "Power of the difference of image and projection"),
    "slice_pow": ("value", "Power of the projection"),
    "image_pow": ("value", "Power of the image"),
    "cross_cor": ("value", "Correlation of image and projection"),
    "weight": ("value", "Weight of the particle"),
    "pose_ess": ("value", "Effective number of orientations"),
    "shift_ess": ("value", "Effective number of shifts"),
}

_ALIGNMENTS: Fields = {
    **FIT,
    "alpha": ("value", "Scale of the particle"),
    "alpha_min": ("value", "Scale of the particle at the least error"),
    "class_ess": ("value", "Effective number of classes"),
    "object_pose": ("angle_rad", "Local refinement: rotation vector of the object"),
    "object_shift": ("shift_px", "Local refinement: shift of the object"),
    "local_pose": ("angle_rad", "Local refinement: rotation vector about the fulcrum"),
    "localshift": ("shift_px", "Local refinement: shift of the fulcrum"),
    "localfulcrum": ("value", "Local refinement: the fulcrum"),
}

_MICROSCOPE: Fields = {
    "accel_kv": ("voltage_kV", "Acceleration voltage"),
    "cs_mm": ("cs_mm", "Spherical aberration"),
    "phase_plate": ("flag", "A phase plate was used"),
    "neg_stain": ("flag", "Negative stain"),
    "exp_group_id": ("count", "Exposure group; numbers may be missing"),
}

_MOTION: Fields = {
    "type": ("text", "Kind of motion"),
}

GROUPS: dict[str, Fields] = {
    r"(\w+_)?blob(_\w+)?|map(_\w+)?|mask(_\w+)?": _IMAGE,
    "ctf": _CTF,
    "ctf_stats": _CTF_STATS,
    "location": _LOCATION,
    "pick_stats": _PICKS,
    "filament": _FILAMENT,
    ALIGNMENT: _ALIGNMENTS,
    "mscope_params": _MICROSCOPE,
    "(rigid|spline)_motion": _MOTION,
    "sym_expand": {
        "src_uid": ("identity", "uid of the particle that was copied"),
        "idx": ("count", "Which symmetry copy, counted from 0"),
    },
}
