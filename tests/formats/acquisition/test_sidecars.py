"""Files that programs of acquisition write beside movies."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.acquisition import epu_xml, mdoc
from cryobridge.formats.acquisition.epu_xml import read_beam_shift
from cryobridge.formats.acquisition.mdoc import MdocMovie, read_mdoc

# As EPU writes them: one line, with a default namespace and one for the numbers.
EPU = (
    '<?xml version="1.0" encoding="utf-8"?>{prolog}<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/'
    'Fei.SharedObjects" xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><name>e</name><microscopeData>'
    "<acquisition><camera><Name>BM-Falcon</Name></camera></acquisition><optics><AccelerationVoltage>300000"
    '</AccelerationVoltage>{before}<BeamShift xmlns:a="http://schemas.datacontract.org/2004/07/Fei.Types">'
    "<a:_x>{x}</a:_x><a:_y>{y}</a:_y></BeamShift><BeamTilt xmlns:a='http://schemas.datacontract.org/2004/07/"
    "Fei.Types'><a:_x>9</a:_x><a:_y>9</a:_y></BeamTilt></optics></microscopeData></MicroscopeImage>"
)


def epu(x="0.0123", y="-1.5E-02", prolog="", before=""):
    return EPU.format(x=x, y=y, prolog=prolog, before=before)


@pytest.fixture
def write(tmp_path):
    def _write(content, name="e.xml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def test_the_beam_shift_is_read(write):
    assert read_beam_shift(write(epu())) == (0.0123, -0.015)


@pytest.mark.parametrize(
    "content",
    [
        epu().replace("><", ">\n    <"),
        "\ufeff" + epu(),
        epu().replace("a:_", "q:_").replace("xmlns:a", "xmlns:q"),
        epu(before="<BeamShift><_z>3</_z></BeamShift>"),
        # As Leginon writes them.
        "<MicroscopeImage><microscopeData><optics><BeamShift xmlns:a='u'><a:_x>0.0123</a:_x>\n<a:_y>-0.015</a:_y>"
        "</BeamShift></optics></microscopeData></MicroscopeImage>",
        epu().encode("utf-16"),
    ],
)
def test_the_form_of_the_file_does_not_matter(write, content):
    if isinstance(content, bytes):
        content = epu().replace("utf-8", "utf-16").encode("utf-16")
    assert read_beam_shift(write(content)) == (0.0123, -0.015)


BOMB = '<!DOCTYPE b [<!ENTITY a "1"><!ENTITY c "' + "&a;" * 50 + '">]>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (epu("&c;", prolog=BOMB), "document type"),
        (epu("&f;", prolog='<!DOCTYPE b [<!ENTITY f SYSTEM "file:///etc/passwd">]>'), "document type"),
        (epu(prolog='<!DOCTYPE b SYSTEM "http://localhost/b.dtd">'), "document type"),
        ("<a>" * 100_000, "too deep"),
        (epu()[:300], "no XML"),
        ("plain", "no XML"),
        (b"\xff\xfe\xfd" * 40, "no XML"),
        (epu("nan"), "no numbers"),
        (epu("1e999"), "no numbers"),
        (epu("one"), "no numbers"),
        (epu("<b>1</b>"), "no numbers"),
        (epu(""), "no numbers"),
        ("<MicroscopeImage><optics/></MicroscopeImage>", "no beam shift"),
        ("<BeamShift><_x>1</_x><_y>2</_y></BeamShift>", "no beam shift"),
        ("", "no XML"),
    ],
)
def test_damaged_and_hostile_xml_is_refused(write, content, said):
    with pytest.raises(FormatError, match=said) as caught:
        read_beam_shift(write(content))
    assert caught.value.hint


def test_xml_is_read_no_further_than_needed(write, monkeypatch):
    monkeypatch.setattr(epu_xml, "MOST_BYTES", 1 << 15)
    assert read_beam_shift(write(epu() + " " * (1 << 20))) == (0.0123, -0.015)
    with pytest.raises(FormatError, match="too many"):
        read_beam_shift(write(epu(before=" " * (1 << 20))))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_shift_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.xml"
    path.write_bytes(content)
    for read in (read_beam_shift, read_mdoc):
        try:
            read(path)
        except CryobridgeError as error:
            assert error.hint


def test_files_that_are_not_there_are_errors(tmp_path):
    for read in (read_beam_shift, read_mdoc):
        with pytest.raises(FormatError, match="can't be read"):
            read(tmp_path / "none")


FRAMES = """T = SerialEM: Krios                       23-Dec-17  13:20:32
Voltage = 300

[FrameSet = 0]
TiltAngle = 0.00249969
ImageShift = -0.643144 2.2e-016
MultishotHoleAndPosition = 3 1
SubFramePath = X:\\Anna\\1015B_g1_0000_Dec23_13.20.21.tif
NumSubFrames = 35
"""


def test_the_image_shift_and_the_position_are_read(write):
    expected = MdocMovie("1015B_g1_0000_Dec23_13.20.21.tif", (-0.643144, 2.2e-16), "3-1")
    assert read_mdoc(write(FRAMES, "a.tif.mdoc")) == [expected]
    assert read_mdoc(write(FRAMES.replace("\n", "\r\n"), "a.tif.mdoc")) == [expected]


def test_a_file_of_a_session_has_a_section_for_each_movie(write):
    content = "ImageFile = all.st\n[T = title]\n" + "".join(
        f"[ZValue = {n}]\nSubFramePath = /d/m{n}.tif\nImageShift = {n} 0\nMultiShotHoleAndPosition = 1 -1 {n}\n\n"
        for n in range(3)
    )
    assert read_mdoc(write(content)) == [MdocMovie(f"m{n}.tif", (float(n), 0.0), f"1--1-{n}") for n in range(3)]


@pytest.mark.parametrize(
    ("value", "position"),
    [
        *(("X+1Y-1-2", "X+1Y-1-2"), ("X1Y0-12", "X1Y0-12"), ("R1H4-0", "R1H4-0"), ("12-1", "12-1")),
        *(("X+1Y-1@2", "X+1Y-1-2"), ("3@1", "3-1"), ("3\t1", "3-1"), ("-1 1 0", "-1-1-0")),
        *(("", None), ("Pos03", None), ("1", None), ("1 2 3 4", None), ("X+1Y-1", None)),
    ],
)
def test_positions_are_those_of_all_versions_of_serialem(write, value, position):
    assert read_mdoc(write(f"[FrameSet = 0]\nMultishotHoleAndPosition = {value}\n"))[0].position == position


@pytest.mark.parametrize("value", ["1", "a b", "1 2 3", "nan 1", "inf 0", ""])
def test_what_is_no_shift_is_not_taken(write, value):
    assert read_mdoc(write(f"[FrameSet = 0]\nImageShift = {value}\n"))[0].image_shift is None


@pytest.mark.parametrize("content", ["", "ImageShift = 1 2\n", "[T = title]\nImageShift = 1 2\n", b"\0\xff" * 9])
def test_files_without_sections_are_refused(write, content):
    with pytest.raises(FormatError, match="no section"):
        read_mdoc(write(content))


def test_huge_files_are_refused(write, monkeypatch):
    monkeypatch.setattr(mdoc, "MOST_BYTES", 1000)
    with pytest.raises(FormatError, match="too many"):
        read_mdoc(write(FRAMES * 10))


def test_ten_thousand_files_take_seconds(write):
    path = write(epu(before="<Custom>x</Custom>" * 500))
    start = time.process_time()
    for _ in range(1000):
        read_beam_shift(path)
    assert time.process_time() - start < 2
