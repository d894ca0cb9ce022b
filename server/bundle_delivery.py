"""What a site gets of a model version, and the coordinator's signature on it."""

from pathlib import Path

from common.bundle import CARD, FLOAT, SIGNATURE, Bundle
from common.files import write_atomically
from common.keys import seal


def files_for_sites(bundle: Bundle, bundle_key: bytes | None = None) -> dict[str, bytes]:
    """Card, program and quantized weights, not the float ones; signed where there is a key.

    The signature is of the card, which has the hash of every file.
    """
    files = {name: content for name, content in bundle.files.items() if name != FLOAT}
    card = bundle.card.to_bytes()
    signed = {} if bundle_key is None else {SIGNATURE: seal(bundle_key, card)}
    return {**files, CARD: card, **signed}


def sign_folder(folder: Path, bundle_key: bytes) -> None:
    """Write the coordinator's signature beside a stored version's card."""
    write_atomically(folder / SIGNATURE, seal(bundle_key, (folder / CARD).read_bytes()))
