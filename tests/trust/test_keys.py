"""Signatures: of a site by its key, of a model version by the coordinator."""

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SettingsError, StateDamaged
from common.keys import (
    fingerprint,
    is_sealed,
    is_signed_by_site,
    new_seal,
    new_site_key,
    public_part,
    seal,
    seal_public,
    sign_as_site,
    write_secret,
)

KEY, OTHER = new_site_key(), new_site_key()
PRIVATE, PUBLIC = new_seal()


@settings(max_examples=30)
@given(content=st.binary(max_size=200), change=st.integers(0, 199), bit=st.integers(0, 7))
def test_what_was_changed_is_not_signed(content: bytes, change: int, bit: int) -> None:
    signature = sign_as_site(KEY, content)
    sealed = seal(PRIVATE, content)
    assert is_signed_by_site(public_part(KEY), content, signature)
    assert is_sealed(PUBLIC, content, sealed)
    changed = bytearray(content or b"\0")
    changed[change % len(changed)] ^= 1 << bit
    assert not is_signed_by_site(public_part(KEY), bytes(changed), signature)
    assert not is_sealed(PUBLIC, bytes(changed), sealed)
    broken = bytearray(sealed)
    broken[change % len(broken)] ^= 1 << bit
    assert not is_sealed(PUBLIC, content, bytes(broken))


def test_another_key_did_not_sign() -> None:
    assert not is_signed_by_site(public_part(OTHER), b"x", sign_as_site(KEY, b"x"))
    assert not is_sealed(new_seal()[1], b"x", seal(PRIVATE, b"x"))
    assert seal_public(PRIVATE) == PUBLIC


@pytest.mark.parametrize("public", ["", "x", "ssh-ed25519 AAAA", "ecdsa-sha2-nistp384 AAAA"])
def test_what_is_no_p384_key_signs_nothing(public: str) -> None:
    assert not is_signed_by_site(public, b"x", sign_as_site(KEY, b"x"))


def test_a_fingerprint_is_that_of_openssh() -> None:
    shown = fingerprint(public_part(KEY))
    assert shown.startswith("SHA256:") and len(shown) == len("SHA256:") + 43
    assert shown != fingerprint(public_part(OTHER))


def test_a_secret_is_its_owners_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    write_secret(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(SettingsError, match="is there already"):
        write_secret(path, b"another")
    assert path.read_bytes() == b"secret"


@pytest.mark.parametrize("content", [b"", b"not a key", PRIVATE])
def test_a_damaged_key_is_named(content: bytes) -> None:
    with pytest.raises(StateDamaged, match="restore it from a backup"):
        public_part(content)
