import re
import subprocess
import sys

import pytest

from common import errors
from simulation.cli import BUG_EXIT_STATUS
from tests.cli.command import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
# Those that errors.py does not define: done, a usage error (click), a bug, an interruption,
# output that its reader closed.
GENERAL = {0, 2, BUG_EXIT_STATUS, 130, 141}


def subclasses(base: type[errors.FedqanaError]) -> list[type[errors.FedqanaError]]:
    return [c for direct in base.__subclasses__() for c in (direct, *subclasses(direct))]


def test_the_list_of_exit_statuses_is_that_of_the_program() -> None:
    raised = {c.__name__: c for c in subclasses(errors.FedqanaError) if "exit_status" in vars(c)}
    defined = {error.exit_status: name for name, error in raised.items()}
    assert len(defined) == len(raised), "two errors share an exit status"
    text = (DOCS / "exit-status.md").read_text()
    listed = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? ?\|", text, flags=re.MULTILINE)
    assert len(listed) == len({status for status, _ in listed})
    assert {int(s) for s, name in listed if not name} == GENERAL
    assert {int(s): name for s, name in listed if name} == defined


def test_the_tree_in_errors_names_the_same_statuses() -> None:
    tree = dict(re.findall(r"[├└]── (\w+)\s+(\d+)  ", str(errors.__doc__)))
    for error in subclasses(errors.FedqanaError):
        if "exit_status" in vars(error):
            assert tree[error.__name__] == str(error.exit_status)


def test_the_command_pages_are_current() -> None:
    script = DOCS / "make_command_pages.py"
    result = subprocess.run(
        [sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_every_page_can_be_reached_from_the_index() -> None:
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for link in re.findall(r"\]\(([^)#:]+\.md)", page.read_text()):
            target = (page.parent / link).resolve()
            if target not in reached and target.exists():
                waiting.append(target)
    assert set(DOCS.rglob("*.md")) <= reached


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page) -> None:  # type: ignore[no-untyped-def]
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    local = [link.split("#")[0] for link in links if "://" not in link and link[0] != "#"]
    assert not [link for link in local if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: p.name)
def test_pages_name_modules_that_exist(page) -> None:  # type: ignore[no-untyped-def]
    named = re.findall(r"`((?:common|server|edge_client|simulation)/[\w/.]*)`", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]
