"""Which bundle a MODEL argument means: a folder, or RUN:VERSION by way of the history."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from common.bundle import CARD, Bundle, load_bundle
from common.errors import BundleDamaged, ModelNotFound
from common.files import sha256_of

LATEST = "latest"
_RUN_AND_VERSION = re.compile(r"(?P<run>.+):(?P<version>\d+|latest)")


@dataclass(frozen=True)
class FoundModel:
    """Where a model's bundle is and what the history knows of it beyond the card.

    Parameters
    ----------
    folder : Path
    card_sha256 : str
        Hash of the card as the history has it; empty for a model given by its folder.
    mean_spikes : dict of str to float
        Mean number of events per image and layer, averaged over the sites that reported it;
        empty where none did.
    sites : int
        Number of those sites.
    latency_ms, power_mw : float or None
        Per image, averaged over the sites that have a device; None where nobody measured.
    """

    folder: Path
    card_sha256: str = ""
    mean_spikes: dict[str, float] = field(default_factory=dict)
    sites: int = 0
    latency_ms: float | None = None
    power_mw: float | None = None

    def load(self) -> Bundle:
        """The bundle, verified against its card, and the card against the history if known.

        Raises ModelNotFound and BundleDamaged as `common.bundle.load_bundle`.
        """
        bundle = load_bundle(self.folder)
        if self.card_sha256 and sha256_of((self.folder / CARD).read_bytes()) != self.card_sha256:
            raise BundleDamaged(
                f"{self.folder / CARD} is not the card that the history recorded; restore the "
                "bundle, or give its folder to use it as it is"
            )
        return bundle


def find_bundle(model: str, out: Path, database: str | None) -> Path:
    """The folder of a model's bundle; as `find_model`."""
    return find_model(model, out, database).folder


def find_model(model: str, out: Path, database: str | None) -> FoundModel:
    """Resolve a MODEL argument.

    Parameters
    ----------
    model : str
        A bundle's folder, or RUN:VERSION, where RUN may be a unique beginning of an id or
        "latest" and VERSION a number or "latest".
    out : Path
        The output folder of runs; the history is in there unless ``database`` names another.
    database : str or None

    Raises
    ------
    ModelNotFound
        Neither a folder nor RUN:VERSION, no such version, or its folder is no longer there.
    RunNotFound, DatabaseUnreachable, SchemaMismatch
        As the history raises them.
    """
    if _is_folder(Path(model)):
        return FoundModel(Path(model))
    parts = _RUN_AND_VERSION.fullmatch(model)
    if parts is None:
        raise ModelNotFound(
            f"no model {model!r}: neither a folder nor RUN:VERSION (such as latest:3); see "
            "'fedqana runs list'"
        )
    return _from_history(parts["run"], parts["version"], out, database)


def _from_history(run: str, version: str, out: Path, database: str | None) -> FoundModel:
    from server.commands.options import database_url
    from server.history.store import open_history
    from server.run_folder import RunFolder

    with open_history(database_url(database, out), create=False) as history:
        record = history.load_record(run)
    run_id, versions = record.run.run_id, {v.version: v for v in record.versions}
    if not versions:
        raise ModelNotFound(f"run {run_id} has no model version yet; its first round makes one")
    number = max(versions) if version == LATEST else int(version)
    if number not in versions:
        raise ModelNotFound(
            f"run {run_id} has no version {number}; it has {min(versions)} to {max(versions)}"
        )
    recorded = Path(versions[number].folder)
    # The output folder may have been moved, or the record is relative to another folder.
    places = [recorded, RunFolder(out / run_id).version(number)]
    folder = next((place for place in places if _is_folder(place)), None)
    if folder is None:
        raise ModelNotFound(
            f"{run_id}:{number} was saved in {recorded}, which is not there; restore it, name the "
            "moved output folder with --out, or give the bundle's folder"
        )
    results = [u.result for u in record.edge_updates if u.version == number]
    spikes = [r["mean_spikes"] for r in results if r.get("mean_spikes")]
    return FoundModel(
        folder,
        versions[number].card_sha256,
        {name: sum(s[name] for s in spikes) / len(spikes) for name in spikes[0]} if spikes else {},
        len(spikes),
        _mean([r.get("latency_ms") for r in results]),
        _mean([r.get("power_mw") for r in results]),
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelNotFound(
            f"cannot look for a model at {path}: {why}; correct the path or its permissions"
        ) from error


def _mean(values: list[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None
