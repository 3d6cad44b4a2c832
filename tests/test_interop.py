"""What `make interop` writes and says, apart from the programs that it runs."""

import pytest
from interop import install
from interop.__main__ import main
from interop.checks import Checks
from interop.report import PYTHON, RELION, write_part


def made(title, found):
    checks = Checks()
    checks.section(title)
    checks.equal("what was found", found, 1)
    return checks


def test_a_part_of_the_page_is_written_anew_and_the_other_stays(tmp_path):
    page = tmp_path / "interop.md"
    write_part(page, RELION, made("Maps", 1), {"RELION": "3.1.3"})
    write_part(page, PYTHON, made("Poses", 1), {"recovar": "1.0.5"})
    first = page.read_text()
    assert first.index("### Poses") < first.index("### Maps")
    write_part(page, RELION, made("Other maps", 2), {"RELION": "4.0.1"})
    second = page.read_text()
    assert "### Maps" not in second
    assert second.count("**1 checks, 1 failed.**") == 1
    assert second.partition(RELION.ends[0])[0] == first.partition(RELION.ends[0])[0]


def test_without_apt_it_says_what_is_left_out(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(install, "program", lambda name: None)
    install.main("relion")
    assert "No apt-get here: the stages of relion and openmpi-bin are left out" in capsys.readouterr().out


def test_without_rights_it_says_what_to_run(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(install.shutil, "which", lambda program, **_: "/usr/bin/apt-get" if "apt" in program else None)
    monkeypatch.setattr(install.os, "geteuid", lambda: 1000)
    install.main("relion")
    assert "run: sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y" in capsys.readouterr().out


def test_what_is_there_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(install, "program", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", "")
    install.main("relion")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("only", "needed"), [("python", "--programs"), ("adaptors", "--programs")])
def test_a_part_says_which_environment_it_needs(only, needed, tmp_path, monkeypatch, capsys):
    words = ["interop", "--only", only, "--work", str(tmp_path / "work"), "--report", str(tmp_path / "page.md")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit):
        main()
    assert needed in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*words, "--programs", "bin"])
    if only == "adaptors":
        with pytest.raises(SystemExit):
            main()
        assert "--packages" in capsys.readouterr().err


def test_a_stage_that_could_not_begin_is_a_check_that_failed():
    checks = Checks()
    checks.stopped("the package is not installed")
    assert [check.holds for check in checks.all] == [False]
