"""Which package may import which, and which one module holds each library."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import ROOT

PACKAGES = ("common", "server", "edge_client", "simulation")

NOT_FROM = {
    "common": {"server", "edge_client", "simulation"},
    "server": {"edge_client", "simulation"},
    "edge_client": {"server", "simulation"},
    "simulation": set[str](),
}

ONLY_IN = {
    "akida": {"common/akida_runtime/"},
    "cnn2snn": {"common/qana/convert.py"},
    "quantizeml": {"common/qana/quantize.py", "common/qana/chip_arithmetic.py"},
    "tensorflow": {"common/keras_setup.py"},
    "tf_keras": {"common/keras_setup.py"},
    "flwr": {
        "common/flower_app.py",
        "common/flower_records.py",
        "edge_client/flower_node.py",
        "edge_client/flower_runner.py",
        "edge_client/privacy.py",
        "server/flower_control.py",
        "server/flower.py",
        "edge_client/flower.py",
        "simulation/in_process.py",
        "simulation/ray_engine.py",
    },
    "cryptography": {"common/keys.py", "server/certificates.py"},
    "grpc": {"edge_client/local_service/"},
    "pydicom": {"common/data/"},
    "sqlalchemy": {"server/history/"},
    "alembic": {"server/history/"},
    "click": {"commands/", "simulation/cli.py"},
}

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports would escape this check"
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_keep_their_distance(package: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if name in NOT_FROM[package]
    ]
    assert not broken


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_in_its_modules_only(library: str) -> None:
    users = {p.relative_to(ROOT).as_posix() for p in MODULES if library in imported(p)}
    assert users
    places = ONLY_IN[library]
    assert not {user for user in users if not any(place in user for place in places)}
