"""The stages of `make interop` with RELION that take seconds: its own programs judge what cryobridge writes."""

import pytest
from interop.checks import Checks
from interop.relion import Relion
from interop.relion_stages import SHORT

pytestmark = pytest.mark.relion


@pytest.mark.parametrize("stage", SHORT, ids=lambda stage: stage.__name__.removeprefix("check_"))
def test_relion_finds_what_it_should(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = Checks()
    stage(checks, Relion(tmp_path))
    assert checks.all
    assert not [check for check in checks.all if not check.holds]
