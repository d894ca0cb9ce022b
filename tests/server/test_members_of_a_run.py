"""Sites that are revoked, decline or are mended while a run goes on."""

from pathlib import Path

import pytest
from flwr.app import Context, Message

from common.errors import QuorumMissed
from common.messages import Answer
from edge_client.flower import app as deployed
from server import accepted_sites
from tests.support.hostile import HostileSites, run_with
from tests.support.tiny_run import create_tiny, record_of

ALL = {"2": "site-1", "3": "site-2", "4": "site-3", "5": "site-4"}


class Coordinator:
    """Revokes sites when a message of a kind is answered by the last site."""

    def __init__(self, kind: str, *revoked: str) -> None:
        self._kind, self._revoked = kind, revoked
        self.members = dict(ALL)

    def __call__(self, message: Message, context: Context) -> Message:
        reply = deployed(message, context)
        if message.metadata.message_type == self._kind and str(context.node_id) == "5":
            self.members = {n: s for n, s in ALL.items() if s not in self._revoked}
        return reply

    def registered(self) -> dict[str, str]:
        """Names by node."""
        return self.members


def test_an_update_from_before_a_revocation_does_not_count(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0, deadline=30.0)
    coordinator = Coordinator("train", "site-2")
    run_with(folder, coordinator, registered=coordinator.registered)
    record = record_of(folder)
    assert record.rounds[0].sites_aggregated == 3 and record.run.state == "finished"
    refused = [(r.site, r.step, r.reason) for r in record.site_results if not r.accepted]
    assert refused == [("site-2", "train", "revoked: the site was revoked meanwhile")]
    later = {r.site for r in record.site_results if r.step in ("evaluate", "deploy", "final")}
    assert later == {"site-1", "site-3", "site-4"}


def test_a_run_goes_on_with_one_site_when_the_others_are_revoked(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0, deadline=30.0)
    coordinator = Coordinator("train", "site-1", "site-2", "site-3")
    for _ in range(3):  # the update step misses its quorum, then those that are left go on
        try:
            run_with(folder, coordinator, registered=coordinator.registered)
            break
        except QuorumMissed:
            continue
    record = record_of(folder)
    assert record.run.state == "finished"
    assert {r.site for r in record.site_results if r.step == "final"} == {"site-4"}


def test_a_run_without_any_site_left_says_so(tmp_path: Path) -> None:
    folder = create_tiny(tmp_path, qat_rounds=0, deadline=30.0)
    coordinator = Coordinator("train", *ALL.values())
    with pytest.raises(QuorumMissed):
        run_with(folder, coordinator, registered=coordinator.registered)
    assert record_of(folder).run.state == "stopped"


@pytest.mark.parametrize("seconds", [0.0, 3600.0], ids=["soon", "later"])
def test_a_site_that_declined_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(accepted_sites, "_ASK_AGAIN_SECONDS", seconds)

    def full(answer: Answer, before: int) -> Answer:
        return Answer(error="storage-full") if before < 2 else answer

    folder = create_tiny(tmp_path, float_rounds=3, qat_rounds=0, deadline=30.0)
    run_with(folder, HostileSites({("handshake", "site-2"): full}))
    record = record_of(folder)
    trained = [r.round for r in record.site_results if (r.site, r.step) == ("site-2", "train")]
    assert trained == ([2, 3] if seconds == 0.0 else [])
    said = [e for e in record.events if e.kind == "site-left-out"]
    assert len(said) == 1 and "storage-full" in said[0].message
