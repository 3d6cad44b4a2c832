"""The readers that are fuzzed: how their input becomes files, what is called, and which valid inputs there are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import movie_files
from cryobridge.errors import CryobridgeError
from fuzz import disagreements, exposures, mutate, seeds

_STAR_TOKENS = (
    *(
        b"\ndata_",
        b"data_\n",
        b"\nloop_\n",
        b"\n_rlnImageName #1\n",
        b"data_particles\n",
        b"data_optics\n",
        b"# version ",
    ),
    *(b"_rlnOpticsGroup", b"_rlnClassNumber", b"_rlnVoltage", b"_rlnBeamTiltX", b"_rlnOddZernike", b"[1,2,3]", b"\n\n"),
    *(b'"a b"', b"'a b'", b'""', b'"\a""', b" # ", b"@", b"000001@", b"\x0b", b"\x0c", b"\x01", b"\x02", b"\x03"),
)
_JSON_TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b'""',
    b"NaN",
    b"\\u0000",
    b"\\ud800",
)
_XML = (
    '<?xml version="1.0"?><MicroscopeImage xmlns="u"><microscopeData><optics><BeamShift xmlns:a="v"><a:_x>0.5</a:_x>'
    "<a:_y>-1e-3</a:_y></BeamShift></optics></microscopeData></MicroscopeImage>"
)
_XML_TOKENS = (
    *(
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"&b;",
        b"&lt;",
        b"&#0;",
        b"<![CDATA[1]]>",
        b"<!--a-->",
        b"<?a b?>",
        b"</a:_x>",
    ),
    *(b"<a:_x>", b"<_y>", b"<BeamShift>", b"</BeamShift>", b"<optics>", b"nan", b"1e999", b"\xef\xbb\xbf", b"<a/>"),
)
_TIFF_TOKENS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\xff\xff", b"\0\0\0\0", b"\0\1", b"\1\0")
_MDOC_TOKENS = (b"[T = a]\n", b"[FrameSet = 1]\n", b" = ", b"nan", b"\r", b"\\", b"\xff")
_MDOC = b"""T = title
[T = title]
[FrameSet = 0]
ImageShift = -0.64 2.2e-016
MultishotHoleAndPosition = 3 1
SubFramePath = X:\\a\\b_13.20.21.tif

[ZValue = 1]
ImageShift = 1 2
"""
_NPY_TOKENS = (
    *(
        b"'<f4'",
        b"'|O'",
        b"'<U3'",
        b"'|V8'",
        b"'<M8[ns]'",
        b"'|S0'",
        b"'<c16'",
        b"'>u8'",
        b"('x','<f4',(2,))",
        b"(-1,)",
    ),
    *(
        b"(1000000000000,)",
        b"()",
        b"(3,)",
        b"True",
        b"False",
        b"None",
        b"[('a','<f4')]",
        b"('','|S4')",
        b"\x93NUMPY\x01\0",
    ),
    *(b"('uid','<u8')", b"('blob/path','|S4',(2,))", b"('a','|b1')", b"('a',[('b','<f4')])", b"'<f2'", b"'<f16'"),
)
_PICKLE_TOKENS = (
    *(
        bytes([code])
        for code in b"()]}.abcdehijklopqrstuBCFGIJKLMNPQRSTUVX\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c"
    ),
    *(bytes([code]) for code in b"\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98"),
    *(b"cos\nsystem\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\n_reconstruct\n", b"I01\n"),
    *(
        b"c_codecs\nencode\n",
        b"cbuiltins\nset\n",
        b"cbuiltins\ncomplex\n",
        b"cnumpy._core.multiarray\nscalar\n",
        b"\x8a\x09",
    ),
)
_YAML_TOKENS = (
    *(
        b"!!python/object/apply:os.system ['x']",
        b"&a ",
        b"*a",
        b"!!binary ",
        b"!!timestamp ",
        b"!!set",
        b"<<: ",
        b"- ",
        b"? ",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b"|",
        b">",
        b"%YAML 1.1\n---\n",
        b"---\n",
        b"...\n",
        b"!!int ",
        b"!!float ",
        b"2001-99-99",
        b".inf",
    ),
    *(b"190:20:30", b"0o7", b"0b1", b"~", b"  ", b"\t", b"results:\n", b"metafile: ", b"num_items: "),
)
_NAME_TOKENS = (
    *(
        b"run_it001_data.star\n",
        b"run_ct5_it006_optimiser.star\n",
        b"run_it002_class001.mrc\n",
        b"RELION_JOB_EXIT_SUCCESS\n",
    ),
    *(b"run_it99999999999999999999_data.star\n", b"run_half1_class001_unfil.mrc\n", b"_it001_", b"_ct", b"_model.star"),
    *(
        b"J4_004_particles.cs\n",
        b"J4_passthrough_particles.cs\n",
        b"_excluded",
        b"fft/particles_fourier_stack_000001.pt\n",
    ),
    *(
        b"Raw_data/a_autopick.star\n",
        b"phys/particles_phys_stack_000000.pt\n",
        b"job.json\n",
        b"autopick.star\n",
        b"\xc2\xb2",
    ),
    *(
        b"restack/batch_1_restacked.mrc\n",
        b"downsample/batch_000000_downsample.mrc\n",
        b"run_it\xd9\xa1\xd9\xa2\xd9\xa3_data.star\n",
    ),
)


def _plain(data, rng, change):
    return change(data, rng)


@dataclass(frozen=True)
class Reader:
    """What is fuzzed under one name."""

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], None]
    lay_out: Callable[[Path, bytes], Path]
    tokens: tuple[bytes, ...] = ()
    inside: Callable = _plain
    modules: tuple[str, ...] = field(default=())
    n_cases: int = 0  # where an input is the number of a case: how many there are


def one_file(name):
    """Write the input as the only file."""

    def lay_out(folder, data):
        path = folder / name
        path.write_bytes(data)
        return path

    return lay_out


class InFolder:
    """A folder of valid files, one of which, told by the first byte, is replaced by the rest of the input."""

    def __init__(self, make_folders, replaced):
        self._make_folders = make_folders
        self._replaced = replaced
        self._changed = None
        self._folders = None

    def seeds(self):
        folders = self._make_folders()
        return [bytes([number]) + folders[which][name] for number, (which, name) in enumerate(self._names(folders))]

    def lay_out(self, folder, data):
        if self._folders is None or not (folder / "0").exists():
            self._folders = self._make_folders()
            for which, files in enumerate(self._folders):
                for name, content in files.items():
                    path = folder / str(which) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
        if self._changed is not None:
            which, name = self._changed
            (folder / str(which) / name).write_bytes(self._folders[which][name])
        names = self._names(self._folders)
        self._changed = names[data[0] % len(names) if data else 0]
        which, name = self._changed
        (folder / str(which) / name).write_bytes(data[1:])
        return folder / str(which)

    def _names(self, folders):
        return [(which, name) for which, files in enumerate(folders) for name in sorted(files) if self._replaced(name)]


def names_of_files(folder, data):
    """Make a folder whose files are named by the lines before the first empty one; what follows is their content."""
    shutil.rmtree(folder, ignore_errors=True)
    names, _, content = data.partition(b"\n\n")
    top = folder / "Class3D" / "job001"
    top.mkdir(parents=True)
    for line in names.split(b"\n")[:40]:
        parts = [part for part in line.replace(b"\0", b"").split(b"/")[:3] if part not in {b"", b".", b".."}]
        try:
            path = top.joinpath(*(part[:200].decode("utf-8", "surrogateescape") for part in parts))
            path.parent.mkdir(parents=True, exist_ok=True)
            if parts:
                path.write_bytes(content)
        except (OSError, ValueError):
            continue
    return top


def refused_or(read, *arguments):
    """Return what a reader returns; None where it refuses, so that the next one has its turn."""
    try:
        return read(*arguments)
    except CryobridgeError:
        return None


def _read_movie(path):
    from cryobridge.formats.movies import movie_header, read_frames

    header = movie_header(path)
    assert header.n_frames > 0
    assert min(header.shape_px) > 0
    refused_or(read_frames, header, [0, header.n_frames - 1])


def _read_gain(path):
    from cryobridge.formats.gain import Turn, flatness, for_relion, read_gain

    gain = read_gain(path)
    for_relion(gain, Turn(flip_x=True, quarter_turns=1), "TIFF", divides=True)
    flatness(gain, gain)


def _read_trajectories(path):
    from cryobridge.formats.cryosparc.motion import patch_shifts, read_rigid, read_spline, to_relion

    rigid, spline = refused_or(read_rigid, path / "rigid.npy"), read_spline(path / "spline.npy")
    patch_shifts(spline, 4, (48, 64))
    if rigid is not None:
        assert np.isfinite(to_relion(rigid, spline, (48, 64)).motion.global_px).all()


def _read_motion(path):
    from cryobridge.formats.relion.motion import read_motion

    read_motion(path)


def _read_exposures(path):
    from cryobridge.formats.cryosparc.exposures import read_exposures

    read_exposures(path)


def _read_micrographs(path):
    from cryobridge.formats.relion.micrographs import read_micrographs

    read_micrographs(path, movies=True)


def _read_beam_shift(path):
    from cryobridge.formats.acquisition.epu_xml import read_beam_shift

    assert np.isfinite(read_beam_shift(path)).all()


def _read_mdoc(path):
    from cryobridge.formats.acquisition.mdoc import read_mdoc

    assert all(movie.image_shift is None or np.isfinite(movie.image_shift).all() for movie in read_mdoc(path))


def _movies():
    pages = [{"width": 48, "height": 36, "compression": 5}] * 3
    events = [{"width": 64, "height": 64, "compression": 1}, *[{"width": 64, "height": 64, "compression": 65001}] * 3]
    files = [movie_files.tiff_bytes(pages), movie_files.tiff_bytes(pages, ">"), seeds.mrc(), *seeds.tiff_movies()]
    return [*files, movie_files.tiff_bytes(events, is_big=True), movie_files.tiff_bytes(pages, ">", is_big=True)]


def _read_cs(path):
    from cryobridge.formats.cryosparc.cs import open_cs

    table = open_cs(path)
    refused_or(table.read, table.names, slice(0, 2))
    refused_or(table.read, table.names, slice(None, None, -2))
    table.read(table.names)


def _read_csg(path):
    from cryobridge.formats.cryosparc.csg import read_csg
    from cryobridge.formats.open import open_particles

    read_csg(path)
    table = open_particles(path).columns
    table.read(table.names)


def _read_cryosparc_job(path):
    from cryobridge.formats.cryosparc.job import read_job, siblings_with
    from cryobridge.formats.folders import identify_folder

    refused_or(identify_folder, path)
    refused_or(siblings_with, path / "J4_000_particles.cs", "ctf")
    read_job(path)


def _read_star(path):
    from cryobridge.formats.relion.star import open_star, to_labels

    star = open_star(path)
    assert star.comments is not None
    assert star.main in star
    for name in star.names:
        block = refused_or(star.__getitem__, name)
        if block is not None:
            for column in block.names:
                to_labels(block.texts(column))
            refused_or(block.read, block.names)
            refused_or(block.read, block.names, slice(1, None, 2))
            refused_or(star.select, name, block.names[::2])


def _read_mrc(path):
    from cryobridge.formats.mrc import open_mrc
    from cryobridge.formats.mrc_header import decide_kind, read_header

    decide_kind(read_header(path))
    file = open_mrc(path)
    assert file.images.shape
    last = file.header.nz - 1
    refused_or(file.read, [0])
    file.read([last, 0])


def _read_pickles(path):
    from cryobridge.formats import pickles
    from cryobridge.formats.pickle_data import load_pickle, peek_pickle, scan_pickle, scan_pickles_in
    from cryobridge.formats.recovar.analysis import read_pairs
    from cryobridge.formats.recovar.clusters import read_clusters
    from cryobridge.formats.recovar.density import LatentGrid

    assert LatentGrid
    scan_pickles_in(path.read_bytes())
    value = refused_or(load_pickle, path)
    refused_or(scan_pickle, path)
    peek_pickle(path)
    if value is None:
        return
    pickles.classify_pickle(value)
    for read in (pickles.read_poses, pickles.read_ctf, pickles.read_indices, pickles.read_kmeans):
        refused_or(read, path)
    for read in (pickles.read_density, pickles.read_halfsets, read_pairs, read_clusters):
        refused_or(read, path)


def _read_npy(path):
    from cryobridge.formats.arrays import describe_arrays, read_npy

    refused_or(describe_arrays, path)
    np.array(read_npy(path))


def _read_npz(path):
    from cryobridge.formats.arrays import describe_arrays, read_npz

    refused_or(describe_arrays, path)
    arrays = read_npz(path)
    refused_or(arrays.describe)
    for name in arrays:
        refused_or(arrays.__getitem__, name)


def _read_pt(path):
    from cryobridge.formats.arrays import describe_arrays, numpy_values, read_pt

    refused_or(lambda: numpy_values(read_pt(path)))
    describe_arrays(path)


def _read_descriptor(path):
    from cryobridge.formats.descriptor import read_image_descriptor

    read_image_descriptor(path)


def _read_relion_job(path):
    from cryobridge.formats.folders import identify_folder
    from cryobridge.formats.relion.job import read_relion_job

    refused_or(identify_folder, path)
    job = read_relion_job(path)
    assert job.chain is not None
    assert job.last is job.last


def _read_names(path):
    from cryobridge.formats.cryosparc.job import read_job
    from cryobridge.formats.own_output import read_own_output

    _ = refused_or(_read_relion_job, path), refused_or(read_own_output, path)
    read_job(path)


def _read_recovar(path):
    from cryobridge.formats.recovar import open_recovar

    run = open_recovar(path)
    for name in ("zdims", "particles_file", "messages", "rows", "eigenvalues", "is_tilt_series"):
        refused_or(getattr, run, name)
    for zdim in refused_or(getattr, run, "zdims") or ():
        for read in (run.latent, run.precision, run.contrasts, run.kmeans, run.umap):
            refused_or(read, zdim)
    for analysis in run.analyses:
        for path_ in analysis.trajectories:
            refused_or(path_.states)
    for density in run.densities:
        _ = [refused_or(file.open) for file in (density.knee, *density.all_densities) if file]


def _read_own_output(path):
    from cryobridge.formats.folders import identify_folder
    from cryobridge.formats.own_output import read_own_output

    refused_or(identify_folder, path)
    read_own_output(path)


def _read_lists(path):
    from cryobridge.jobs.selection.values import read_labels, read_rows

    refused_or(read_rows, path, 3, path)
    read_labels(path, 3, path)


def _read_sources(path):
    from cryobridge.jobs.identity.sources import read_sources

    read_sources(path)


def _read_where(path):
    from cryobridge.jobs.selection.where_text import parse_where

    parse_where(path.read_bytes().decode("utf-8", "surrogateescape"))


def _read_particles_cs(path):
    from cryobridge.formats.cryosparc.particles import read_particles_cs

    read_particles_cs(path)


def _read_particles_star(path):
    from cryobridge.formats.relion.particles import read_particles_star

    read_particles_star(path)


def _read_particles_pickles(path):
    from cryobridge.formats.particles_pickle import particles_from_pickles

    particles_from_pickles(path / "stack.mrcs", path / "poses.pkl", path / "ctf.pkl")


def _inspect(path):
    from cryobridge.errors import UsageError
    from cryobridge.jobs.inspection.describe import inspect

    try:
        report = inspect(path, rows=2)
    except UsageError:  # rows are for tables
        report = inspect(path)
    json.dumps(report.to_json(), allow_nan=False)


def _group_folders():
    passthrough = {name: array for name, array in seeds.cs_columns().items() if not name.startswith("blob")}
    return [{"a.csg": seeds.CSG, "particles.cs": seeds.cs_npy(), "passthrough_particles.cs": seeds.cs_npy(passthrough)}]


def _cryosparc_folders():
    files = {"J4_000_particles.cs": seeds.cs_npy(), "J4_001_particles.cs": seeds.cs_stream()}
    return [{**files, "job.json": seeds.job_json_v5()}, {**files, "job.json": seeds.job_json_v4()}, files]


def _own_folders():
    picks = (
        b"data_coordinate_files\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\nm.mrc Raw_data/m_autopick.star\n"
    )
    job = b'{"program": "cryobridge", "version": "0.1", "command": "coords", "status": "completed"}'
    return [
        {"job.json": job, "autopick.star": picks, "Raw_data/m_autopick.star": b"", "Raw_data/n_autopick.star": b""},
        {"job.json": job, "fft/particles_fourier_stack_000001.pt": b"x"},
    ]


def _trajectory_folders():
    return [{"rigid.npy": seeds.npy(exposures.rigid()), "spline.npy": seeds.npy(exposures.spline())}]


def _pickle_folders():
    values = seeds.pickles()
    return [{"stack.mrcs": seeds.mrc((3, 4, 4)), "poses.pkl": values[0], "ctf.pkl": values[4]}]


def _relion_names():
    content = seeds.STAR_LIST
    runs = [f"run_it{number:03d}_{part}.star" for number in (0, 1, 3) for part in ("data", "model", "optimiser")]
    maps = ["run_it003_class001.mrc", "run_it003_half1_class001_unfil.mrc", "run_ct3_it004_data.star", "run_data.star"]
    first = "\n".join([*runs, *maps, "RELION_JOB_EXIT_SUCCESS", "job.star", "run_half1_class001_unfil.mrc"])
    second = "\n".join(
        ["J4_000_particles.cs", "J4_001_particles.cs", "J4_001_particles_excluded.cs", "restack/a_1.mrc"]
    )
    third = "\n".join(f"fft/particles_fourier_stack_{n:06d}.{suffix}" for n in (0, 2) for suffix in ("pt", "npz"))
    fourth = "autopick.star\nRaw_data/a_autopick.star\nRaw_data/b_autopick.star"
    return [text.encode() + b"\n\n" + content for text in (first, second, third, fourth)]


_SOURCES = (
    b"image,source_row,source_file,source_slice,uid\n1@a.mrcs,0,b.mrcs,0,9223372036854775809\n2@a.mrcs,1,b.mrcs,1,\n"
)
_WHERE = [
    b"rlnClassNumber = 3",
    b"ctf/df1_A > 1e4 and not (a in (1, 2,3) or `b c` != 'x')",
    b"a < -1.5 or uid == 18446744073709551615",
]
_GROUP = InFolder(_group_folders, lambda name: True)
_CRYOSPARC = InFolder(_cryosparc_folders, lambda name: True)
_RECOVAR = InFolder(seeds.recovar_files, lambda name: True)
_OWN = InFolder(_own_folders, lambda name: name.endswith((".json", "autopick.star")))
_PICKLES = InFolder(_pickle_folders, lambda name: True)
_TRAJECTORIES = InFolder(_trajectory_folders, lambda name: True)


def _all_files():
    return [
        *(seeds.cs_npy(), seeds.cs_stream(), seeds.STAR_PARTICLES, seeds.STAR_LIST, seeds.CSG, *seeds.mrcs()[2:4]),
        *(*seeds.compressed_mrcs()[:1], *seeds.pickles()[::3], *seeds.plain_npys()[:3], *seeds.npzs()[:2]),
        *(*seeds.descriptors()[:1], *seeds.tensors()[:2]),
    ]


def _inside_any(data, rng, change):
    for magic, inside in (
        (b"\x93NUMPY", mutate.inside_npy),
        (b"\x95CSDAT", mutate.inside_csdat),
        (b"PK", mutate.inside_zip),
        (b"\x1f\x8b", mutate.inside_compressed),
        (b"\x80", mutate.inside_pickle),
    ):
        if data.startswith(magic):
            return inside(data, rng, change)
    return change(data, rng)


_FOLDERS = (InFolder(_cryosparc_folders, lambda name: True), InFolder(seeds.recovar_files, lambda name: True))


def _folder_seeds():
    """Return inputs of job folders: the first byte tells the program, the next one the file."""
    return [bytes([number]) + data for number, folder in enumerate(_FOLDERS) for data in folder.seeds()]


def _lay_out_folder(folder, data):
    number = data[0] % len(_FOLDERS) if data else 0
    return _FOLDERS[number].lay_out(folder / f"job{number}", data[1:])


_ALL_TOKENS = (*_STAR_TOKENS, *_JSON_TOKENS, *_NPY_TOKENS, *_PICKLE_TOKENS, *_YAML_TOKENS)
_cs_npys, _streams = (lambda: [seeds.cs_npy()]), (lambda: [seeds.cs_stream(), seeds.cs_stream(compress=False)])
_stars = lambda: [seeds.STAR_PARTICLES, seeds.STAR_OLD, seeds.STAR_LIST]  # noqa: E731

READERS = {
    reader.name: reader
    for reader in (
        Reader("cs", _cs_npys, _read_cs, one_file("a.cs"), _NPY_TOKENS, mutate.inside_npy),
        Reader("cs stream", _streams, _read_cs, one_file("a.cs"), _JSON_TOKENS, mutate.inside_csdat),
        Reader(
            "csg",
            _GROUP.seeds,
            _read_csg,
            lambda f, d: _GROUP.lay_out(f, d) / "a.csg",
            _YAML_TOKENS,
            mutate.inside_part,
        ),
        Reader(
            "cryosparc job", _CRYOSPARC.seeds, _read_cryosparc_job, _CRYOSPARC.lay_out, _JSON_TOKENS, mutate.inside_part
        ),
        Reader("star", _stars, _read_star, one_file("a.star"), _STAR_TOKENS),
        Reader("mrc", seeds.mrcs, _read_mrc, one_file("a.mrc"), (), mutate.inside_mrc),
        Reader("mrc compressed", seeds.compressed_mrcs, _read_mrc, one_file("a.mrc.gz"), (), mutate.inside_compressed),
        Reader("movies", _movies, _read_movie, one_file("a.tif"), _TIFF_TOKENS),
        Reader("gain references", seeds.gains, _read_gain, one_file("a.gain"), _TIFF_TOKENS),
        Reader(
            "trajectories",
            _TRAJECTORIES.seeds,
            _read_trajectories,
            _TRAJECTORIES.lay_out,
            _NPY_TOKENS,
            mutate.inside_part,
        ),
        Reader("motion of relion", lambda: [exposures.MOTION], _read_motion, one_file("a.star"), _STAR_TOKENS),
        Reader(
            "exposures",
            lambda: [exposures.exposures_cs()],
            _read_exposures,
            one_file("a.cs"),
            _NPY_TOKENS,
            mutate.inside_npy,
        ),
        Reader("micrographs", lambda: [exposures.MICROGRAPHS], _read_micrographs, one_file("a.star"), _STAR_TOKENS),
        Reader(
            "beam shifts",
            lambda: [_XML.encode(), _XML.encode("utf-16")],
            _read_beam_shift,
            one_file("a.xml"),
            _XML_TOKENS,
        ),
        Reader("mdoc", lambda: [_MDOC], _read_mdoc, one_file("a.mdoc"), _MDOC_TOKENS),
        Reader("pickles", seeds.pickles, _read_pickles, one_file("a.pkl"), _PICKLE_TOKENS, mutate.inside_pickle),
        Reader("npy", seeds.plain_npys, _read_npy, one_file("a.npy"), _NPY_TOKENS, mutate.inside_npy),
        Reader("npz", seeds.npzs, _read_npz, one_file("a.npz"), _NPY_TOKENS, mutate.inside_zip),
        Reader("pt", seeds.tensors, _read_pt, one_file("a.pt"), _PICKLE_TOKENS, mutate.inside_zip),
        Reader(
            "image parameters",
            seeds.descriptors,
            _read_descriptor,
            one_file("params.npz"),
            _NPY_TOKENS,
            mutate.inside_zip,
        ),
        Reader("names in job folders", _relion_names, _read_names, names_of_files, _NAME_TOKENS),
        Reader("recovar run", _RECOVAR.seeds, _read_recovar, _RECOVAR.lay_out, _PICKLE_TOKENS, mutate.inside_part),
        Reader("cryobridge output", _OWN.seeds, _read_own_output, _OWN.lay_out, _STAR_TOKENS, mutate.inside_part),
        Reader("lists", lambda: [b"0\n1 # a\n2\n", b"# x\n2 1 0"], _read_lists, one_file("a.txt")),
        Reader("tables of sources", lambda: [_SOURCES], _read_sources, one_file("a_sources.csv"), (b",", b'"', b"\n")),
        Reader(
            "where",
            lambda: _WHERE,
            _read_where,
            one_file("a"),
            (b" and ", b" or ", b" not ", b"(", b")", b" in ", b"`"),
        ),
        Reader("particles of cs", _cs_npys, _read_particles_cs, one_file("a.cs"), _NPY_TOKENS, mutate.inside_npy),
        Reader("particles of star", _stars, _read_particles_star, one_file("a.star"), _STAR_TOKENS),
        Reader(
            "particles of pickles",
            _PICKLES.seeds,
            _read_particles_pickles,
            _PICKLES.lay_out,
            _PICKLE_TOKENS,
            mutate.inside_part,
        ),
        Reader("inspect of job folders", _folder_seeds, _inspect, _lay_out_folder, _JSON_TOKENS, mutate.inside_part),
        Reader("inspect", _all_files, _inspect, one_file("a"), _ALL_TOKENS, _inside_any),
        Reader(
            "columns of other kinds",
            disagreements.as_inputs(*disagreements.ONCE_AT_FAULT),
            disagreements.read_kind,
            lambda f, d: disagreements.lay_out_kind(f / "kinds", d),
            n_cases=disagreements.N_KINDS,
        ),
        Reader(
            "files that disagree",
            disagreements.as_inputs(*range(20), *disagreements.CASES_ONCE_AT_FAULT),  # each command is among them
            disagreements.read_case,
            lambda f, d: disagreements.lay_out_case(f / "cases", d),
            n_cases=disagreements.N_CASES,
        ),
        Reader(
            "exposures of other kinds",
            disagreements.as_inputs(*exposures.ONCE_AT_FAULT),
            exposures.read_kind,
            lambda f, d: exposures.lay_out_kind(f / "kinds", d),
            n_cases=exposures.N_KINDS,
        ),
        Reader(
            "exposures that disagree",
            disagreements.as_inputs(*range(3), *exposures.CASES_ONCE_AT_FAULT),
            exposures.read_case,
            lambda f, d: exposures.lay_out_case(f / "cases", d),
            n_cases=disagreements.N_CASES,
        ),
    )
}
