"""The stages of `make interop` with RELION that take seconds: its own programs judge what cryobridge writes."""

import pytest
from interop import extraction, reconstructions
from interop.checks import Checks
from interop.relion import Relion

pytestmark = pytest.mark.relion


@pytest.mark.parametrize(
    "stage", [*reconstructions.STAGES, *extraction.STAGES], ids=lambda stage: stage.__name__.removeprefix("check_")
)
def test_relion_finds_what_it_should(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = Checks()
    stage(checks, Relion(tmp_path))
    assert checks.all
    assert not [check for check in checks.all if not check.holds]
