"""Small valid files, written with other libraries where there is one, from which the fuzzing starts."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import struct
import tempfile
import warnings
from pathlib import Path

import lz4.block
import mrcfile
import numpy as np

from recovar_runs import simulate_run

N = 3
STAR_PARTICLES = b"""
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
1 opticsGroup1 300.0 2.7 0.1 1.5 16

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnOpticsGroup #3
_rlnDefocusU #4
_rlnDefocusV #5
_rlnDefocusAngle #6
_rlnAngleRot #7
_rlnAngleTilt #8
_rlnAnglePsi #9
_rlnOriginXAngst #10
_rlnOriginYAngst #11
_rlnClassNumber #12
_rlnRandomSubset #13
_rlnCoordinateX #14
_rlnCoordinateY #15
000001@a.mrcs m1.mrc 1 10000.0 9900.0 10.0 1.0 2.0 3.0 0.5 -0.5 1 1 10.0 20.0
000002@a.mrcs m1.mrc 1 10001.0 9901.0 11.0 1.5 2.5 3.5 0.5 -0.5 2 2 11.0 21.0
000001@b.mrcs "m 2.mrc" 1 1e4 9902 12.0 -1.0 92.0 -3.0 0.25 0 1 1 12.0 22.0

"""
STAR_OLD = b"""data_
loop_
_rlnImageName
_rlnVoltage
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnDetectorPixelSize
_rlnMagnification
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginX
_rlnOriginY
1@a.mrcs 300 10000 9900 10 2.7 0.1 5 50000 1 2 3 0 0
2@a.mrcs 300 10000 9900 10 2.7 0.1 5 50000 1 2 3 0 0
"""
STAR_LIST = b"""# job
data_job

_rlnJobTypeLabel             relion.class3d
_rlnJobIsContinue                       0
_text "with 'quotes' and \ttabs" # comment

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
fn_img "my file.star"
other  ""   # empty
"""
CSG = b"""created: 2024-01-02 03:04:05.678901
group:
  description: All particles
  name: particles
  title: Particles
  type: particle
results:
  blob:
    metafile: '>particles.cs'
    num_items: 3
    type: particle.blob
  ctf:
    metafile: '>passthrough_particles.cs'
    num_items: 3
    type: particle.ctf
version: v4.4.1
"""


def cs_columns():
    return {
        "uid": np.arange(N, dtype="<u8") + 2**63,
        "blob/path": np.array([b"J1/a.mrc", b"J1/a.mrc", b"J1/b.mrc"]),
        "blob/idx": np.arange(N, dtype="<u4"),
        "blob/shape": np.full((N, 2), 16, "<u4"),
        "blob/psize_A": np.full(N, 1.5, "<f4"),
        "ctf/exp_group_id": np.ones(N, "<u4"),
        "ctf/accel_kv": np.full(N, 300, "<f4"),
        "ctf/cs_mm": np.full(N, 2.7, "<f4"),
        "ctf/amp_contrast": np.full(N, 0.1, "<f4"),
        "ctf/df1_A": np.full(N, 1e4, "<f4"),
        "ctf/df2_A": np.full(N, 1e4, "<f4"),
        "ctf/df_angle_rad": np.zeros(N, "<f4"),
        "ctf/phase_shift_rad": np.zeros(N, "<f4"),
        "alignments3D/pose": np.full((N, 3), 0.1, "<f4"),
        "alignments3D/shift": np.zeros((N, 2), "<f4"),
        "alignments3D/psize_A": np.full(N, 1.5, "<f4"),
        "alignments3D/class": np.zeros(N, "<u4"),
        "alignments3D/split": np.array([0, 1, 0], "<u4"),
    }


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def cs_npy(columns=None):
    columns = columns or cs_columns()
    table = np.empty(N, [(name, array.dtype, array.shape[1:]) for name, array in columns.items()])
    for name, array in columns.items():
        table[name] = array
    return npy(table)


def cs_stream(columns=None, compress=True):
    heap, entries, payloads = b"\0", [], []
    for name, array in (columns or cs_columns()).items():
        if array.dtype.kind == "S":
            offsets = []
            for text in array.tolist():
                offsets.append(len(heap))
                heap += text + b"\0"
            entries.append([name, "|O"])
            payloads.append(np.array(offsets, "<u8").tobytes())
        else:
            entries.append([name, array.dtype.str, *([list(array.shape[1:])] if array.ndim > 1 else [])])
            payloads.append(array.tobytes())
    packed = [entry[0] for entry in entries if entry[0] != "uid"] if compress else []
    head = json.dumps(
        {"length": N, "dtype": entries, "compression": "lz4" if compress else None, "compressed_fields": packed}
    ).encode()
    out = b"\x95CSDAT" + struct.pack("<I", len(head)) + head
    for entry, payload in zip(entries, payloads, strict=True):
        data = lz4.block.compress(payload, store_size=False) if entry[0] in packed else payload
        out += struct.pack("<I", len(data)) + data
    return out + heap


def mrc(shape=(2, 4, 4), dtype="f4"):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "a.mrc"
        with mrcfile.new(path, np.arange(np.prod(shape)).reshape(shape).astype(dtype)) as file:
            file.voxel_size = 1.5
        return path.read_bytes()


def mrcs():
    big = bytearray(mrc())
    extended = mrc()
    extended = extended[:92] + struct.pack("<i", 32) + extended[96:1024] + b"x" * 32 + extended[1024:]
    big[212:216] = b"\x11\x11\0\0"
    kinds = [mrc(dtype=dtype) for dtype in ("i1", "i2", "f4", "u2", "f2", "c8")]
    return [*kinds, mrc((4, 4, 4)), extended, bytes(big)]


def tiff(*pages, **how):
    """Return a TIFF file of images, by Pillow."""
    from PIL import Image

    file = io.BytesIO()
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(file, "TIFF", save_all=True, append_images=others, **how)
    return file.getvalue()


def gains():
    gain = np.linspace(0.5, 1.5, 48, dtype="f4").reshape(6, 8)
    counts = (gain * 100).astype("u1")
    packed = [tiff(counts, compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]
    return [mrc((1, 6, 8)), tiff(gain), *packed, tiff(counts.astype("u2")), tiff(np.stack([counts] * 3, axis=2))]


def tiff_movies():
    frames = [np.arange(48, dtype="u1").reshape(6, 8) + number for number in range(3)]
    return [tiff(*frames), tiff(*frames, compression="tiff_lzw")]


def compressed_mrcs():
    return [*(gzip.compress(data, 1, mtime=0) for data in mrcs()[:4]), *(bz2.compress(data) for data in mrcs()[:4])]


def pickled_values():
    rotations = np.tile(np.eye(3, dtype="f4"), (N, 1, 1))
    ctf = np.tile(np.array([128, 1.5, 1e4, 9900, 10, 300, 2.7, 0.1, 0], "f4"), (N, 1))
    return [
        (rotations, np.zeros((N, 2), "f4")),
        rotations,
        ctf,
        np.arange(N),
        [0, 1, 2],
        [np.array([0, 2]), np.array([1])],
        {"centers": np.zeros((2, 4), "f4"), "labels": np.array([0, 1, 0])},
        {"density": np.ones((4, 3)), "latent_space_bounds": np.array([[0.0, 1], [2, 3]]), "alpha": 0.5},
        {"centers": np.zeros((2, 4)), "pairs": [(0, 1), (1, 0)]},
        np.array([None, 1, "a", np.zeros(2)], dtype=object),
        {"a": [1, 2.5, "x", None, True, {1, 2}, frozenset([3]), b"y", 1j], "n": np.float64(3), "m": 10**30},
    ]


def pickles():
    values = pickled_values()
    found = [pickle.dumps(value, protocol) for value in values for protocol in (2, 4)]
    return [*found, *(pickle.dumps(value, 0) for value in values[3:8]), pickle.dumps(values[3], 5)]


def plain_npys():
    return [
        npy(np.arange(6.0).reshape(2, 3)),
        npy(np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3))),
        npy(np.array(["a", "bc"])),
        npy(np.array(5)),
        npy(np.zeros((0, 3))),
        npy(np.array([True, False])),
        npy(np.array([None])),
    ]


def descriptor_arrays():
    return {
        "n_pixels": np.array([16, 16]),
        "pixel_size": np.array([1.5, 1.5]),
        "radius_max": np.array(4.0),
        "dist_radii": np.array(0.25),
        "n_inplanes": np.array(32),
        "precision": np.array("single"),
        "viewing_distance": np.array(0.08),
        "atom_radii": np.array(None, dtype=object),
        "atom_selection": np.array("name CA"),
        "use_protein_residue_model": np.array(True),
        "atom_shape": np.array("gaussian"),
    }


def npzs():
    found = []
    for save in (np.savez, np.savez_compressed):
        for arrays in ({"a": np.arange(4), "b": np.array(["x"])}, {"c": np.array(None, dtype=object)}):
            file = io.BytesIO()
            save(file, **arrays)
            found.append(file.getvalue())
    return found


def descriptors():
    found = []
    for arrays in (descriptor_arrays(), {**descriptor_arrays(), "defocusU": np.ones(3)}):
        file = io.BytesIO()
        np.savez(file, **arrays)
        found.append(file.getvalue())
    return found


def tensors():
    import torch

    found = []
    plain = torch.zeros(2, 3)
    values = (plain, torch.zeros(2, dtype=torch.complex64), {"a": torch.arange(3)}, [1, 2])
    values += (torch.nn.Parameter(plain), torch.zeros(2, dtype=torch.complex64).conj(), plain.to_sparse())
    values += (plain.to("meta"), plain.to(torch.bfloat16), {"model": {"a": plain}, "epoch": 3})
    for value in values:
        for is_zip in (True, False):
            file = io.BytesIO()
            torch.save(value, file, _use_new_zipfile_serialization=is_zip)
            found.append(file.getvalue())
    return found


def job_json_v5():
    slots = [
        {"name": name, "dtype": f"particle.{name}", "metafiles": ["J4/J4_000_particles.cs", "J4/J4_001_particles.cs"],
         "versions": [0, 1], "num_items": [3, 3], "passthrough": name == "ctf"}
        for name in ("blob", "ctf")
    ]  # fmt: skip
    spec = {
        "type": "homo_refine_new",
        "outputs": {"particles": {"type": "particle", "title": "Particles", "results": slots}},
        "inputs": {"particles": {"connections": [{"job_uid": "J3", "output": "particles"}]}},
    }
    return json.dumps({"uid": "J4", "title": "t", "status": "completed", "version": "v5.0", "spec": spec}).encode()


def job_json_v4():
    results = [
        {"name": "blob", "type": "particle.blob", "group_name": "particles", "metafiles": ["J4/J4_001_particles.cs"],
         "versions": [1], "num_items": 3, "passthrough": False}
    ]  # fmt: skip
    groups = [{"name": "particles", "type": "particle", "title": "Particles", "num_items": 3}]
    inputs = [{"name": "particles", "connections": [{"job_uid": "J3", "group_name": "particles"}]}]
    content = {"uid": "J4", "job_type": "x", "title": "t", "status": "completed", "output_results": results}
    return json.dumps({**content, "output_result_groups": groups, "input_slot_groups": inputs}).encode()


def recovar_files():
    """Return the files of a simulated run in both layouts, by name; of maps and densities a few."""
    found = []
    for layout in ("documented", "older"):
        with tempfile.TemporaryDirectory() as folder:
            run = simulate_run(Path(folder), layout, rows=[1, 2, 4])
            paths = [path for path in run.out.rglob("*") if path.is_file() and _is_of_use(path)]
            found.append({str(path.relative_to(run.out)): path.read_bytes() for path in paths})
    return found


def _is_of_use(path):
    if path.suffix == ".mrc":
        return path.stem in {"mean", "center000"}
    return path.stem not in {"halfsets", "umap_embedding", "contrasts"} and not {"zdim_4", "all_densities"} & {
        *path.parts
    }
