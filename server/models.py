"""Model versions of the deployed server: listed, promoted, rolled back, exported."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from common.bundle import SIGNATURE, Bundle, save_bundle
from common.errors import ModelNotFound, SettingsError
from common.files import write_atomically, writing_to
from common.keys import seal_public
from common.qana.initial import RANDOM
from server.bundle_delivery import sign_folder
from server.delivery_order import Delivered, delivered_by, write_delivery
from server.history.excerpts import Excerpts, open_excerpts
from server.history.records import DELIVERY_OF, Promotion, Run
from server.model_lookup import FoundModel, find_model
from server.new_run import new_run_name
from server.plan import make_plan
from server.run_control import launch_new
from server.server_database import open_members, open_runs
from server.server_settings import ServerFolder


@dataclass(frozen=True)
class ListedVersion:
    """One line of the list of versions.

    ``parent`` names the version whose weights it was trained from, "" for the first;
    ``balanced_accuracy`` is that of the network on validation lesions, None where too few;
    ``switched`` counts the sites, of the ``sites`` that it was brought to by its round or a
    delivery, that have said to have switched to it when they got it last.
    """

    name: str
    parent: str
    phase: str
    created_at: datetime
    balanced_accuracy: float | None
    fits: tuple[str, ...]
    signed: bool
    promoted: bool
    switched: int
    sites: int


def list_versions(folder: ServerFolder, run: str | None = None) -> list[ListedVersion]:
    """All versions, oldest first; of one run only where one is named."""
    with open_excerpts(folder.database_url()) as excerpts:
        promoted = excerpts.members.promotions()
        current = (promoted[-1].run_id, promoted[-1].version) if promoted else None
        every = excerpts.history.list_runs()[::-1]
        asked = [excerpts.history.get_run(run)] if run else every
        switched = _switched(excerpts, every, {stored.run_id for stored in asked})
        listed = []
        for stored in asked:
            parent = ""
            for version in excerpts.versions_of(stored.run_id)[::-1]:
                name = f"{stored.run_id}:{version.version}"
                answers = switched.get(name, {})
                listed.append(
                    ListedVersion(
                        name=name,
                        parent=parent,
                        phase=version.phase,
                        created_at=version.created_at,
                        balanced_accuracy=_balanced_accuracy(version.metrics),
                        fits=tuple(n for n, fit in version.fit.items() if fit["fits"]),
                        signed=(Path(version.folder) / SIGNATURE).is_file(),
                        promoted=(stored.run_id, version.version) == current,
                        switched=sum(answers.values()),
                        sites=len(answers),
                    )
                )
                parent = name
    return listed


def _switched(
    excerpts: Excerpts, runs: list[Run], wanted: Collection[str]
) -> dict[str, dict[str, bool]]:
    """By version and site whether it switched when it got it last, in a round or a delivery.

    ``runs`` are all of them, oldest first; ``wanted`` are names of those whose versions count.
    """
    found: dict[str, dict[str, bool]] = {}
    for run in runs:
        made_by = delivered_by(run, 0).rpartition(":")[0]
        if made_by not in wanted:
            continue
        for update in excerpts.outcomes([run.run_id]):
            answers = found.setdefault(delivered_by(run, update.version), {})
            answers[update.site] = update.switched
    return found


def promote(folder: ServerFolder, model: str, action: str = "promote") -> tuple[str, str]:
    """Sign a version and start its delivery to all sites.

    Returns the version's full name and the name of the delivery, which `fedqana rounds status`
    shows.
    """
    found, bundle, version = _found(folder, model)
    name = f"{bundle.card.run}:{version}"
    place = found.folder.resolve()
    delivery = f"delivery-{new_run_name()}"
    with open_members(folder) as members:
        approved = sum(m.state == "approved" for m in members.all())
    if not approved:
        raise SettingsError("no site is approved yet; see 'fedqana site list'")
    with open_runs(folder) as history:
        original = history.get_run(bundle.card.run).plan
    plan = make_plan(
        **{
            **original,
            "run": delivery,
            "expected_sites": approved,
            "crop": bundle.card.crop,
            "initial": RANDOM,  # nothing is trained: the run's folder has no such file
            "classes": bundle.card.classes[: len(original["classes"])],
        }
    )

    def prepare(path: Path) -> None:
        key = folder.bundle_key.read_bytes()
        sign_folder(place, key)
        delivered = Delivered(run=bundle.card.run, version=version, folder=str(place))
        write_delivery(path, delivered)

    launch_new(folder, plan, f"{DELIVERY_OF}{name}", prepare)
    with open_members(folder) as members:
        members.promote(bundle.card.run, version, action)
    return name, delivery


def roll_back(folder: ServerFolder) -> tuple[str, str]:
    """Promote the version that was promoted before the present one."""
    with open_members(folder) as members:
        promoted = members.promotions()
    if not promoted:
        raise ModelNotFound(
            "no version was promoted yet; see 'fedqana models list' and promote one"
        )
    standing = _standing(promoted)
    if len(standing) < 2:
        raise ModelNotFound(
            f"there is nothing before {':'.join(map(str, standing[-1]))} to go back to; promote "
            "another version"
        )
    return promote(folder, f"{standing[-2][0]}:{standing[-2][1]}", "rollback")


def _standing(promoted: list[Promotion]) -> list[tuple[str, int]]:
    """Versions promoted and not rolled back, oldest first: each rollback takes one away."""
    standing: list[tuple[str, int]] = []
    for promotion in promoted:
        version = (promotion.run_id, promotion.version)
        if promotion.action == "rollback" and standing:
            standing.pop()
        if not standing or standing[-1] != version:
            standing.append(version)
    return standing


def export(folder: ServerFolder, model: str, out: Path) -> dict[str, Any]:
    """Write a version's bundle with its signature and the public key as a new folder ``out``."""
    found, bundle, version = _found(folder, model)
    with writing_to(out):
        if out.exists():
            raise SettingsError(f"{out} is there already; choose another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
    save_bundle(bundle, out)
    key = folder.bundle_key.read_bytes()
    sign_folder(out, key)
    write_atomically(out / "bundle.pub", f"{seal_public(key)}\n".encode())
    return {
        "model": f"{bundle.card.run}:{version}",
        "folder": str(out),
        "public_key": seal_public(key),
        "source": str(found.folder),
    }


def _found(folder: ServerFolder, model: str) -> tuple[FoundModel, Bundle, int]:
    folder.settings()
    found = find_model(model, folder.runs, folder.database_url())
    bundle = found.load()
    return found, bundle, bundle.card.version


def _balanced_accuracy(metrics: dict[str, Any]) -> float | None:
    value = metrics.get("validation", {}).get("balanced_accuracy", {}).get("value")
    return None if value is None else float(value)
