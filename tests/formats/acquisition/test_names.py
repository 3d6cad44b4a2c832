import time

import pytest

from cryobridge.formats.acquisition.names import epu_name, epu_position, serialem_position

UID = "000090334788266266069_"


@pytest.mark.parametrize(
    ("name", "position", "has_hole"),
    [
        ("FoilHole_28788144_Data_28764755_46_20240328_192116_fractions.tiff", "28764755_46", True),
        (f"J2/{UID}FoilHole_9015883_Data_9017347_6_20250108_154915_EER_patch_aligned.mrc", "9017347_6", True),
        ("FoilHole_1464933_Data_427288_427290_20250502_213110_Fractions.mrc", "427288_427290", False),
        ("FoilHole_26502880_Data_26503611_26503612_20190726_1321_Fractions.mrc", "26503611_26503612", False),
        ("raw/FoilHole_10218182_Data_10216707_10216709_20231010_225333.mrcs", "10216707_10216709", False),
    ],
)
def test_positions_are_read_from_epus_names(name, position, has_hole):
    assert epu_position(name) == position
    assert epu_name(name).has_hole_of_pattern is has_hole


def test_what_all_files_of_an_exposure_share_is_found():
    name = epu_name("FoilHole_28788144_Data_28764755_46_20240328_192116_fractions.tiff")
    assert name.exposure == "FoilHole_28788144_Data_28764755_46_20240328_192116"


@pytest.mark.parametrize(
    "name", ["GridSquare_20250108_151151.xml", "FoilHole_901_20250108_154715.jpg", "FoilHole_1_Data_2_3.mrc", "m1.mrc"]
)
def test_other_names_are_not_epus(name):
    assert epu_position(name) is None


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("SAVED4M-DNA3_39-103_001_X+0Y+0-1.tif", "X+0Y+0-1"),
        (f"J2/motioncorrected/{UID}g1_001_X-1Y+1-0_patch_aligned_doseweighted.mrc", "X-1Y+1-0"),
        ("grid_X+1Y-1-2_Dec23_13.20.21.tif", "X+1Y-1-2"),
        ("grid_X1Y-1-2.eer", "X1Y-1-2"),
        ("hex_0012_R1H4-0.tif", "R1H4-0"),
        ("250123_SF0431_01129_1-7.eer", "1-7"),
        (f"{UID}250123_SF0431_01129_1-7_patch_aligned.mrc", "1-7"),
        ("g_0003_12-0_Dec23_13.20.21.tif", "12-0"),
        # The label of an item, with the number of the movie behind it.
        ("gpcr_190808no17_99-1_0000_Aug16_15.53.48.tif", None),
        ("k2_1219_cva6X_00087.tif", None),
        ("FoilHole_1_Data_2_3_20240328_192116_fractions.tiff", None),
        ("MAX+1Y-1-2.tif", None),
    ],
)
def test_positions_are_read_from_serialems_names(name, position):
    assert serialem_position(name) == position


@pytest.mark.parametrize("read", [epu_position, serialem_position])
def test_ten_thousand_names_take_no_time(read):
    names = [f"J2/{UID}FoilHole_{n}_Data_2_3_20240328_{n:06d}_fractions_patch_aligned.mrc" for n in range(10_000)]
    start = time.process_time()
    list(map(read, names))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("read", [epu_position, serialem_position])
@pytest.mark.parametrize("part", ["FoilHole_1_Data_1_1_", "_1-1", "X+1Y+1-", "_a", "_Dec23_13.20.21", "0"])
def test_long_names_take_no_time(read, part):
    start = time.process_time()
    read(part * 20_000 + "!")
    assert time.process_time() - start < 1
