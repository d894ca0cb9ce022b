"""What of a request's path counts as the Fleet API."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.front import FLEET, is_fleet


def test_the_fleet_api_is_passed_on() -> None:
    for page in ("pull-messages", "activate-node", "push-object"):
        path = f"/v1/fleet/{page}"
        assert is_fleet(path.encode(), path)


@pytest.mark.parametrize(
    "raw",
    [
        "/v1/control/list-runs",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1//fleet/pull-messages",
        "/v1/fleet//pull-messages",
        "/v1/fleet/./pull-messages",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleetx/pull",
        "//v1/fleet/pull-messages",
        "/v1/FLEET/pull-messages",
        "/v1/fleet/pull%2dmessages",
    ],
)
def test_everything_else_is_not(raw: str) -> None:
    assert not is_fleet(raw.encode(), unquote(raw))


@given(st.text(alphabet="/.%2eE5cfv1letcontrol-", max_size=40))
def test_however_it_is_spelled_only_the_fleet_api_is_reached(rest: str) -> None:
    raw = FLEET + rest
    if is_fleet(raw.encode(), unquote(raw)):
        assert ".." not in raw and "%" not in raw and "//" not in raw
        assert quote(raw) == raw
