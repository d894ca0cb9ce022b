"""From nothing to a learned case: a server, three hospitals, two rounds, all as real processes."""

import hashlib
import json
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import ErrorCode
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab

from common.bundle import load_bundle
from common.flower_app import app_bundle
from common.keys import is_sealed, seal_public
from edge_client.audit_log import verify
from edge_client.client_folder import ClientFolder
from tests.deployment.hospitals import Hospitals, eventually, hospitals

SITES = ("north", "south", "west")
MINUTES = 4.0

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]
) -> Iterator[Hospitals]:
    started = time.monotonic()
    with hospitals(tmp_path_factory.mktemp("e2e")) as made:
        made.start_server()
        for site in SITES:
            made.join(site, data[site])
            made.clients[site].start()
        made.approve("north", "south", "west")
        made.wait_online(*SITES)
        made.start_run("first", "--deadline", "90")
        # While the second round trains, one hospital's client is killed.
        made.wait_step("first", 2, "train")
        eventually("west trains", 60, lambda: made.clients["west"].said("Receiving: train"))
        made.clients["west"].stop(signal.SIGKILL)
        taught = made.client("north", "learn", *_one_image(data["west"]), "--diagnosis", "mel")
        assert "learned" in taught.stdout
        made.wait_finished("first")
        made.clients["west"].start()
        made.wait_online("west")
        made.seconds = time.monotonic() - started  # type: ignore[attr-defined]
        yield made


def _one_image(folder: Path) -> list[str]:
    """An image that the hospital does not have: none of its lesions is held back from learning."""
    return [str(sorted(folder.rglob("*.png"))[0])]


def test_it_takes_less_than_four_minutes(deployed: Hospitals) -> None:
    assert deployed.seconds < MINUTES * 60  # type: ignore[attr-defined]


def test_both_rounds_count_and_the_dead_site_is_named(deployed: Hospitals) -> None:
    status = deployed.status("first")
    assert status["state"] == "finished"
    rows = {site["site"]: site for site in status["sites"]}
    assert rows["north"]["step"] == rows["south"]["step"] == "final"
    assert rows["west"]["reason"]
    listed = json.loads(deployed.coordinator("models", "list", "--json").stdout)
    assert [v["name"] for v in listed] == ["first:1", "first:2"]
    assert listed[0]["switched"] == 3


def test_what_serves_at_a_site_is_what_the_server_signed(deployed: Hospitals) -> None:
    home = deployed.home("north")
    public = ClientFolder(home).config().seal
    assert public == seal_public((deployed.folder / "keys" / "bundle.key").read_bytes())
    version = (home / "state" / "current").read_text().strip()
    assert version == "first.2"
    served = json.loads((home / "state" / "versions" / version / "meta.json").read_text())
    assert served["version"] == version
    bundle = load_bundle(deployed.folder / "runs" / "first" / "versions" / "2")
    assert bundle.card.version == 2
    out = deployed.root / "exported"
    deployed.coordinator("models", "export", "first:2", str(out))
    card, signature = (out / "card.json").read_bytes(), (out / "card.sig").read_bytes()
    assert is_sealed(public, card, signature)


def test_the_taught_case_is_kept_and_the_chip_answers(
    deployed: Hospitals, data: dict[str, Path]
) -> None:
    cases = json.loads(deployed.client("north", "cases", "--json").stdout)
    assert [case["diagnosis"] for case in cases] == ["mel"]
    answer = deployed.client("north", "classify", *_one_image(data["west"]), "--json")
    found = json.loads(answer.stdout)
    assert found[0]["state"]["model_version"] == "first.2"


def test_a_site_back_from_the_dead_takes_part_in_the_next_delivery(deployed: Hospitals) -> None:
    told = json.loads(deployed.coordinator("models", "promote", "first:1", "--json").stdout)
    deployed.wait_finished(told["delivery"], 90)
    rows = {s["site"]: s for s in deployed.status(told["delivery"])["sites"]}
    assert set(rows) == set(SITES) and all(row["step"] == "deploy" for row in rows.values())


def test_everything_that_left_a_site_is_in_its_audit_log(deployed: Hospitals) -> None:
    for site in SITES:
        report = verify(deployed.home(site))
        assert report.lines > 0 and not report.problems


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-runs",
        "/v1/control/start-run",
        "/v1/control/stop-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1//control/list-runs",
        "/v1/fleet/",
        "/",
        "/docs",
        "/openapi.json",
    ],
)
def test_sites_reach_nothing_but_the_fleet_api(deployed: Hospitals, path: str) -> None:
    context = ssl.create_default_context(cafile=str(ClientFolder(deployed.home("north")).ca))
    request = urllib.request.Request(f"https://{deployed.address}{path}", data=b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10, context=context)
    assert refused.value.code == 403


def test_with_all_that_a_site_has_no_run_can_be_listed_started_or_stopped(
    deployed: Hospitals,
) -> None:
    folder = ClientFolder(deployed.home("north"))
    control = ControlHttpClient.from_server_address(
        deployed.address, insecure=False, root_certificates=str(folder.ca), interceptors=[]
    )
    fab = fab_to_proto(Fab(app_bundle()[1], app_bundle()[0], {}))
    calls: list[Callable[[], object]] = [
        lambda: control.ListRuns(ListRunsRequest()),
        lambda: control.StartRun(StartRunRequest(fab=fab)),
        lambda: control.StopRun(StopRunRequest(run_id=1)),
        lambda: control.ListNodes(ListNodesRequest()),
    ]
    for call in calls:
        with pytest.raises(httpx.HTTPStatusError) as refused:
            call()
        assert refused.value.response.status_code == 403


_FOREIGN = """
from pathlib import Path
import flwr
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

PLACE = Path({place!r})
(PLACE / "imported").write_text("x")
client = ClientApp()

@client.train()
def train(message, context):
    (PLACE / "ran at a site").write_text("x")
    return Message(RecordDict(), reply_to=message)

server = ServerApp()

@server.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    content = RecordDict({{"instruction": ConfigRecord({{"ask": "{{}}"}})}})
    messages = [Message(content, n, "train", ttl=60) for n in nodes]
    for reply in grid.send_and_receive(messages, timeout=60):
        (PLACE / f"reply {{reply.metadata.src_node_id}}").write_text(
            str(reply.error.code) if reply.has_error() else "no error"
        )
"""

_FOREIGN_PYPROJECT = """
[project]
name = "foreign"
version = "1.0.0"
description = "somebody else's application"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "foreign:server"
clientapp = "foreign:client"
"""


def test_another_application_is_refused_by_every_site_and_never_runs_there(
    deployed: Hospitals, tmp_path: Path
) -> None:
    """Even from the coordinator's own machine, where anyone may start what they like."""
    place = tmp_path / "place"
    place.mkdir()
    content, _ = build_fab_from_files(
        {
            "pyproject.toml": _FOREIGN_PYPROJECT.encode(),
            "foreign.py": _FOREIGN.format(place=str(place)).encode(),
        }
    )
    control = ControlHttpClient.from_server_address(
        f"127.0.0.1:{deployed.superlink}",
        insecure=False,
        root_certificates=str(deployed.folder / "tls" / "ca.crt"),
        interceptors=[],
    )
    fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
    control.StartRun(StartRunRequest(fab=fab_to_proto(fab)))
    replies = eventually(
        "three replies", 120, lambda: found if len(found := list(place.glob("reply*"))) == 3 else []
    )
    assert {reply.read_text() for reply in replies} == {str(ErrorCode.INVALID_FAB)}
    assert not (place / "ran at a site").exists()
    for site in SITES:
        assert deployed.clients[site].said("refused an application")
