"""Invitations, keys, approvals: every way in which a site may or may not come to take part."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, update
from sqlalchemy.exc import DBAPIError

from common.errors import EnrolmentRefused, SettingsError
from server.history import tables
from server.history.membership import Membership, open_membership

KEY, OTHER = "ecdsa-sha2-nistp384 AAAA", "ecdsa-sha2-nistp384 BBBB"


@pytest.fixture
def members(url: str) -> Iterator[Membership]:
    with open_membership(url) as opened:
        yield opened


def test_a_site_is_invited_joins_is_approved_and_revoked(members: Membership) -> None:
    member, code = members.invite("charite", 72)
    assert member.state == "invited" and code not in repr(members.get("charite"))
    joined = members.join("charite", code, KEY, {"fedqana": "1"})
    assert (joined.state, joined.public_key) == ("pending", KEY)
    assert members.names_by_node() == {}
    members.approve("charite", "18446744073709551615", KEY)
    assert members.names_by_node() == {"18446744073709551615": "charite"}
    members.heard("charite")
    assert members.get("charite").heard_at is not None
    members.revoke("charite")
    assert members.names_by_node() == {}
    assert members.get("charite").public_key == KEY, "so that it can be told that it was revoked"
    actions = [line.action for line in members.trail()]
    assert actions == ["site invited", "site joined", "site approved", "site revoked"]


def test_a_reply_that_got_lost_is_no_second_use(members: Membership) -> None:
    _, code = members.invite("a", 1)
    first = members.join("a", code, KEY, {})
    assert members.join("a", code, KEY, {}) == first
    assert [line.action for line in members.trail()].count("site joined") == 1


def test_a_code_works_for_one_key_and_one_name(members: Membership) -> None:
    _, code = members.invite("a", 1)
    members.invite("b", 1)
    with pytest.raises(EnrolmentRefused, match="wrong or was used"):
        members.join("b", code, KEY, {})
    members.join("a", code, KEY, {})
    with pytest.raises(EnrolmentRefused, match="wrong or was used"):
        members.join("a", code, OTHER, {})


def test_a_key_belongs_to_one_site(members: Membership) -> None:
    _, code = members.invite("a", 1)
    members.join("a", code, KEY, {})
    _, second = members.invite("b", 1)
    with pytest.raises(EnrolmentRefused, match="belongs to another site"):
        members.join("b", second, KEY, {})


def test_an_invitation_expires(members: Membership, url: str) -> None:
    _, code = members.invite("a", 1)
    engine = create_engine(url)
    with engine.begin() as connection:
        past = datetime.now(UTC) - timedelta(minutes=1)
        connection.execute(update(tables.members).values(expires_at=past))
    engine.dispose()
    with pytest.raises(EnrolmentRefused, match="expired"):
        members.join("a", code, KEY, {})


@pytest.mark.parametrize("state", ["nobody", "revoked"])
def test_who_is_not_invited_is_refused(members: Membership, state: str) -> None:
    code = "x"
    if state == "revoked":
        _, code = members.invite("a", 1)
        members.join("a", code, KEY, {})
        members.revoke("a")
    with pytest.raises(EnrolmentRefused, match="no invitation"):
        members.join("a", code, KEY, {})


def test_a_site_that_takes_part_is_not_invited_over(members: Membership) -> None:
    _, code = members.invite("a", 1)
    members.join("a", code, KEY, {})
    members.approve("a", "1", KEY)
    with pytest.raises(SettingsError, match="revoke it first"):
        members.invite("a", 1)
    members.revoke("a")
    members.invite("a", 1)
    assert members.get("a").state == "invited"


def test_an_unknown_site_is_named_with_those_there_are(members: Membership) -> None:
    members.invite("a", 1)
    with pytest.raises(SettingsError, match="'b'; invited so far: a"):
        members.get("b")


def test_the_trail_cannot_be_changed(members: Membership, url: str) -> None:
    members.note("coordinator", "looked", "nothing")
    engine = create_engine(url)
    for statement in ("UPDATE audit SET action = 'x'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()
    assert [line.action for line in members.trail()] == ["looked"]


def test_an_approval_that_came_too_late_does_not_undo_a_revocation(members: Membership) -> None:
    _, code = members.invite("a", 1)
    members.join("a", code, KEY, {})
    members.revoke("a")
    with pytest.raises(SettingsError, match="has changed meanwhile"):
        members.approve("a", "1", KEY)
    assert members.get("a").state == "revoked"
