"""A model version on disk: program, weights and a card that vouches for both.

A bundle is a folder::

    program.fbz     the Akida program
    quantized.npz   kernels and biases of the quantized network
    float.npz       weights of the float network it was quantized from
    card.json       classes, lineage, software versions, metrics, sha256 of every other file

It is written whole or not at all and verified on load. The card holds nothing that depends on
when it was written, so equal runs give equal bundles.
"""

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from common import __version__
from common.arrays import from_npz, to_npz
from common.classes import ClassMap
from common.errors import BundleDamaged, ModelNotFound
from common.files import replace_folder, sha256_of, writing_to
from common.qana.config import QanaConfig
from common.saliency.choice import CropName

PROGRAM = "program.fbz"
QUANTIZED = "quantized.npz"
FLOAT = "float.npz"
CARD = "card.json"
SIGNATURE = "card.sig"
"""Ed25519 signature of the card by the coordinator, 64 bytes, where a bundle travels."""
_SOFTWARE = ("flwr", "tensorflow", "tf_keras", "akida", "cnn2snn", "quantizeml", "numpy")


class Card(BaseModel):
    """What a bundle says of itself.

    ``sha256`` maps each other file of the bundle to its hash; ``ranges`` are the aggregated
    calibration ranges in chain order; ``parent`` is the version whose weights this one was
    trained from, 0 for the initial weights; ``crop`` is how images must be cropped for it, empty
    in cards that were written before it was noted; ``all_symmetries`` is whether the run asked its
    sites to answer by eight views with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    run: str
    version: int
    parent: int
    phase: Literal["float", "qat"]
    classes: tuple[str, ...]
    config: QanaConfig
    crop: CropName | Literal[""] = ""
    all_symmetries: bool = False
    seed: int
    software: dict[str, str]
    sha256: dict[str, str]
    ranges: tuple[float, ...] = ()
    fit: dict[str, Any] = {}
    metrics: dict[str, Any] = {}

    def class_map(self) -> ClassMap:
        """The classes in index order."""
        return ClassMap(self.classes)

    def to_bytes(self) -> bytes:
        """Canonical JSON with a seal: the SHA-256 of the same JSON without it."""
        # Without what earlier versions did not note: their cards' seals hold.
        later = {name for name in ("crop", "all_symmetries") if not getattr(self, name)}
        fields = self.model_dump(mode="json", exclude=later)
        sealed = {**fields, "seal": sha256_of(_canonical(fields))}
        return _canonical(sealed)


class Bundle:
    """A verified bundle: its card and its files' contents.

    Parameters
    ----------
    card : Card
    files : dict of str to bytes
        Every file that the card names and the bundle has; a site gets no ``float.npz``.
    """

    def __init__(self, card: Card, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            if card.sha256.get(name) != sha256_of(content):
                raise BundleDamaged(
                    f"{name} of {card.run}:{card.version} does not match its card's sha256; "
                    "fetch the bundle again"
                )
        self.card = card
        self.files = files

    def weights(self, file: str) -> dict[str, Any]:
        """Named float32 arrays of ``quantized.npz`` or ``float.npz``."""
        try:
            return from_npz(self.files[file])
        except (KeyError, ValueError) as error:
            raise BundleDamaged(f"the bundle has no usable {file}: {error}") from error


def software_versions() -> dict[str, str]:
    """Versions of what makes a model, by distribution name."""
    found = {"fedqana": __version__}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def make_bundle(
    program: bytes,
    quantized: dict[str, Any],
    floating: dict[str, Any],
    **card: Any,
) -> Bundle:
    """A bundle of these parts; ``card`` are the fields of `Card` without hashes and versions."""
    files = {PROGRAM: program, QUANTIZED: to_npz(quantized), FLOAT: to_npz(floating)}
    hashes = {name: sha256_of(content) for name, content in files.items()}
    return Bundle(Card(sha256=hashes, software=software_versions(), **card), files)


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle as ``folder``, whole or not at all; an older one there is replaced."""
    prepared = folder.with_name(f".{folder.name}.partial")
    with writing_to(folder):
        shutil.rmtree(prepared, ignore_errors=True)
        prepared.mkdir(parents=True)
        for name, content in {**bundle.files, CARD: bundle.card.to_bytes()}.items():
            (prepared / name).write_bytes(content)
    replace_folder(prepared, folder)


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, indent=2, sort_keys=True).encode()


def parse_card(content: bytes) -> Card:
    """A card from its bytes; raises BundleDamaged unless they are exactly what was written."""
    try:
        fields = json.loads(content)
        fields.pop("seal", None)
        card = Card.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleDamaged(
            f"card.json is not a model card of this version ({where}: {first['msg']}); "
            "fetch the bundle again or use the fedqana that wrote it"
        ) from error
    except (ValueError, AttributeError, TypeError) as error:
        raise BundleDamaged("card.json is not JSON of a card; fetch the bundle again") from error
    if content != card.to_bytes():
        raise BundleDamaged("card.json does not match its own seal; fetch the bundle again")
    return card


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises ModelNotFound where there is none and BundleDamaged where a file is missing or
    differs from its hash.
    """
    try:
        if not (folder / CARD).is_file():
            raise ModelNotFound(
                f"no model bundle at {folder} (there is no {CARD}); give a bundle's folder or "
                "RUN:VERSION, see 'fedqana runs list'"
            )
        card = parse_card((folder / CARD).read_bytes())
        files = {name: (folder / name).read_bytes() for name in (PROGRAM, QUANTIZED, FLOAT)}
        return Bundle(card, files)
    except OSError as error:
        raise BundleDamaged(
            f"cannot read {error.filename}: {error.strerror}; fetch the bundle again"
        ) from error
    except BundleDamaged as error:
        raise BundleDamaged(f"{folder}: {error}") from error
