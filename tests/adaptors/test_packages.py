"""Packages that may be absent, and the wavelengths that they compute."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import constants

import cryobridge as cb
from adaptor_particles import particles, with_images
from cryobridge import adaptors
from cryobridge.adaptors.packages import CODATA, RECOVAR, SPENCE, loaded
from cryobridge.model.contrast_transfer import wavelength_A
from helpers import environment

VOLTAGES = np.array([80.0, 100.0, 120.0, 200.0, 300.0])


@pytest.mark.parametrize("formula", [CODATA, SPENCE, RECOVAR], ids=["codata", "spence", "recovar"])
def test_by_the_matched_voltage_a_package_has_relions_wavelength(formula):
    matched = formula.voltage_kV(VOLTAGES)
    np.testing.assert_allclose(formula.wavelength_A(matched), wavelength_A(VOLTAGES), rtol=1e-14)
    assert (np.abs(matched - VOLTAGES) < 0.03).all()


def test_the_formulas_are_those_of_the_packages():
    volts = 3e5
    electron_V = constants.electron_mass * constants.c**2 / constants.e
    codata = 1e10 * constants.h * constants.c / constants.e / np.sqrt(volts * (2 * electron_V + volts))
    np.testing.assert_allclose(CODATA.wavelength_A(np.array([300.0]))[0], codata, rtol=1e-12)
    assert CODATA.voltage_kV(np.array([300.0]))[0] == pytest.approx(299.996863, abs=1e-6)
    assert SPENCE.voltage_kV(np.array([300.0]))[0] == pytest.approx(299.983973, abs=1e-6)
    assert SPENCE.wavelength_A(np.array([300.0]))[0] == pytest.approx(0.01968697, abs=1e-8)


def absent(monkeypatch, module):
    for name in {module, *(name for name in sys.modules if name.startswith(f"{module}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    for ours in ("cryobridge.adaptors.cryospax_classes", "cryobridge.adaptors.aspire_classes"):
        monkeypatch.delitem(sys.modules, ours, raising=False)


@pytest.mark.parametrize(
    ("module", "package", "call"),
    [
        ("torch_ctf", "torch-ctf", lambda made: adaptors.to_torch_ctf(made).images()),
        ("cryospax", "cryospax", adaptors.to_cryospax),
        ("aspire", "aspire", adaptors.to_aspire),
        ("cryosparc", "cryosparc-tools", adaptors.to_cryosparc_tools),
    ],
)
def test_a_package_that_is_absent_is_an_error_that_says_what_to_install(monkeypatch, module, package, call):
    absent(monkeypatch, module)
    with pytest.raises(cb.CryobridgeError, match=f"{package} is not installed") as failure:
        call(particles(groups=1))
    assert failure.value.hint == f"Run pip install {package}."


def test_a_fault_in_our_own_modules_is_not_taken_for_an_absent_package():
    with pytest.raises(ModuleNotFoundError, match="nothing_like_it"):
        loaded("cryobridge.adaptors.nothing_like_it", "some-package")


def test_importing_the_adaptors_loads_no_package():
    code = "import sys, cryobridge.adaptors; print(*sorted({'numpy', 'torch', 'jax', 'aspire'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", adaptors.__all__)
def test_every_adaptor_is_there_and_documented(name):
    assert "Examples" in getattr(adaptors, name).__doc__
    assert name in dir(adaptors)


def test_they_are_there_without_an_import_of_their_own():
    code = "import cryobridge as cb; print(cb.adaptors.to_torch_ctf.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "to_torch_ctf"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'to_nothing'"):
        _ = adaptors.to_nothing


def test_an_unknown_option_is_refused(tmp_path):
    made = with_images(particles(groups=1), tmp_path)
    for call in (adaptors.to_torch_ctf, adaptors.to_cryospax, adaptors.to_aspire):
        with pytest.raises(cb.CryobridgeError, match="colour"):
            call(made, colour="red")
    with pytest.raises(cb.CryobridgeError, match="colour"):
        adaptors.to_cryodrgn(made, tmp_path / "out", colour="red")
