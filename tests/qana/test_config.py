"""What stored configurations mean, and which of them are the same network."""

import pytest
from pydantic import ValidationError

from common.bundle import parse_card
from common.qana.config import DEMO_CONFIG, ELEMENTS, WHOLE_CONFIG, QanaConfig
from common.qana.networks import model_hash
from tests.bundle.parts import small_bundle


def test_a_configuration_of_before_there_were_elements_to_choose_has_all() -> None:
    stored = QanaConfig().model_dump(mode="json")
    del stored["elements"]
    assert QanaConfig.model_validate(stored) == WHOLE_CONFIG
    # And is written as it was then: cards are sealed, and what sites keep is compared.
    assert WHOLE_CONFIG.model_dump(mode="json") == stored


def test_a_version_of_before_is_read_under_its_old_seal() -> None:
    card = small_bundle().card.model_copy(update={"config": WHOLE_CONFIG})
    content = card.to_bytes()
    assert b"elements" not in content  # so it is what was written then
    assert parse_card(content).config == WHOLE_CONFIG
    today = small_bundle().card.to_bytes()
    assert b'"elements": []' in today or b'"elements":[]' in today
    assert parse_card(today).config == QanaConfig()


def test_a_whole_networks_digest_is_what_it_was_before_there_were_elements_to_choose() -> None:
    assert DEMO_CONFIG.digest()[:12] == "e863a0474bec"
    assert WHOLE_CONFIG.digest()[:12] == "5c58a4852749"


def test_elements_have_one_order_and_survive_json() -> None:
    some = QanaConfig(elements=("excitation", "attention"))
    assert some.elements == ("attention", "excitation")
    assert some == QanaConfig(elements=("attention", "excitation", "attention"))
    assert QanaConfig.model_validate(some.model_dump(mode="json")) == some


def test_networks_of_other_elements_have_other_digests_and_weights() -> None:
    kinds = [
        DEMO_CONFIG.model_copy(update={"elements": elements})
        for elements in (ELEMENTS, *((e,) for e in ELEMENTS), ())
    ]
    assert len({kind.digest() for kind in kinds}) == len(kinds)
    assert len({model_hash(kind, 3) for kind in kinds}) == len(kinds)


def test_an_unknown_element_is_refused() -> None:
    with pytest.raises(ValidationError, match="attention"):
        QanaConfig.model_validate({"elements": ["dropout"]})
