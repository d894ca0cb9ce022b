"""Everything the project needs is pinned to one exact version, without addresses."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = {"fedqana", "pip"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normalized(name): version for name, version in pinned}


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(entry for extra in extras for entry in extra)]
    names = {normalized(re.split(r"[\[<>=;]", entry)[0]) for entry in wanted}
    assert names <= pins().keys()


def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {normalized(d.metadata["Name"]): d.version for d in distributions()}
    other = {n: v for n, v in installed.items() if n not in TOOLS and pins().get(n) != v}
    assert not other


def test_pins_name_no_address() -> None:
    assert not re.search(r"https?:|@|--", (ROOT / "constraints.txt").read_text())
