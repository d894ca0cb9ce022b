"""From a data set to site folders: whole lesions to sites, to parts, and to arrivals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.classes import HAM10000_CLASSES, ClassMap
from common.data.cases import Cases, LesionImage
from common.data.preparation import Cropping
from common.data.readers import read_lesion_images
from common.data.sites import assign_sites
from common.data.synthetic import synthetic_lesion_images
from common.errors import DataUnfit, SettingsError
from common.files import write_atomically
from common.saliency.choice import CropChoice, CropName, Tell, crop_of
from common.seeds import derive_seed
from edge_client.site import SiteData, SiteFolder
from edge_client.site_preparation import prepared_parts

POOLED = "pooled"
_DONE = "sites.json"


class NewClass(BaseModel):
    """A class that no site knows at first; it appears at one site in one round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    round: int = Field(ge=1)
    site: str


class DataSettings(BaseModel):
    """What determines the sites' data; kept with the run so that a resume can make it again.

    ``classes`` are the codes that labels may have. ``data`` is a folder or ``synthetic:N`` (N
    lesions); ``sites`` as `assign_sites` takes it; ``arrivals`` the share of training lesions
    that arrive between rounds instead of being there from the start; ``baseline`` "" for
    federated training, "pooled" for one site with all data, or a site's name for that site
    alone, judged on all sites' test lesions. ``keep_neurons`` names the sites that do not share
    what their chips learned of new classes. ``crop`` and ``saliency_weights`` as `CropChoice`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str
    sites: str
    classes: tuple[str, ...] = HAM10000_CLASSES.codes
    seed: int = Field(ge=0, lt=2**32)
    rounds: int
    arrivals: float = Field(ge=0, le=0.5)
    size: int
    new_class: NewClass | None = None
    baseline: str = ""
    keep_neurons: tuple[str, ...] = ()
    crop: CropName = "centre"
    saliency_weights: str = ""

    @property
    def crop_choice(self) -> CropChoice:
        """How images are cropped."""
        return CropChoice(self.crop, self.saliency_weights)

    @property
    def name(self) -> str:
        """What the data is called in the history."""
        source = self.data if is_made_up(self.data) else Path(self.data).name
        text = f"{source}, sites {self.sites}"
        if self.crop != "centre":
            text += f", crop {self.crop}"
        return f"{text}, baseline {self.baseline}" if self.baseline else text

    def cropping(
        self, cache: Path | None = None, tell: Tell = lambda done, total: None
    ) -> Cropping:
        """The crop itself; raises as `crop_of`."""
        data = None if is_made_up(self.data) else Path(self.data)
        return crop_of(self.crop_choice, data=data, cache=cache, tell=tell)


def make_data_settings(**settings: Any) -> DataSettings:
    """Checked settings, a folder of data as a whole path; SettingsError names what does not fit."""
    data = settings["data"]
    try:
        return DataSettings.model_validate(
            {**settings, "data": data if is_made_up(data) else str(Path(data).resolve())}
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise SettingsError(f"--{option}: {first['msg']}") from error


def is_made_up(data: str) -> bool:
    """Whether a data set is not a folder but made up: ``synthetic`` or ``synthetic:N``."""
    return data == "synthetic" or data.startswith("synthetic:")


def read_images(data: str, seed: int, classes: ClassMap) -> list[LesionImage]:
    """All images of a data set; DataNotFound, UnknownLabel or DataUnreadable as its reader."""
    if is_made_up(data):
        _, _, count = data.partition(":")
        if count and (not (count.isascii() and count.isdecimal()) or int(count) < 50):
            raise SettingsError(f"{data}: give at least 50 lesions, e.g. synthetic:400")
        return synthetic_lesion_images(
            int(count or 400), derive_seed(seed, "synthetic"), classes=classes
        )
    return read_lesion_images(Path(data), classes)


def site_names(settings: DataSettings) -> list[str]:
    """Names of the sites that the settings make; raises what `write_sites` would, but early."""
    images = read_images(settings.data, settings.seed, ClassMap(settings.classes))
    if len({image.label for image in images}) < 2:
        raise DataUnfit(
            f"{settings.data} has images of fewer than two classes, so there is nothing to learn; "
            "see 'fedqana data check'"
        )
    settings.cropping()
    names = sorted(assign_sites(images, settings.sites, settings.seed))
    wanted = settings.baseline
    if wanted not in ("", POOLED, *names):
        raise SettingsError(
            f"--baseline {wanted}: no such site; there are {', '.join(names)} and {POOLED!r}"
        )
    unknown = sorted(set(settings.keep_neurons) - set(names))
    if unknown:
        raise SettingsError(
            f"--keep-neurons: there is no site {unknown[0]!r}; the sites are {', '.join(names)}"
        )
    new = settings.new_class
    if new is not None and new.site not in names:
        raise SettingsError(
            f"--new-class: there is no site {new.site!r}; the sites are {', '.join(names)}"
        )
    if new is not None and wanted not in ("", POOLED, new.site):
        raise SettingsError(
            f"--new-class: only {new.site} has cases of {new.code}, so --baseline {wanted} could "
            f"not be judged on them; use --baseline {new.site} or {POOLED}"
        )
    return [wanted] if wanted else names


def write_sites(
    settings: DataSettings,
    folder: Path,
    cache: Path | None,
    tell: Tell = lambda done, total: None,
) -> list[Path]:
    """Make the sites' folders below ``folder``, or find them as made before.

    ``tell`` is told how many lesions of a part of a site a saliency crop has found.

    Returns
    -------
    list of Path
        One folder per site, sorted by name.
    """
    done = folder / _DONE
    if not done.exists():
        images = read_images(settings.data, settings.seed, ClassMap(settings.classes))
        crop = settings.cropping(cache, tell)
        if settings.crop == "mask":
            cache = None  # it does not know the masks, which may change
        by_site = assign_sites(images, settings.sites, settings.seed)
        data = {
            name: _site_data(name, members, settings, cache, crop)
            for name, members in sorted(by_site.items())
        }
        sites = _for_baseline(data, settings.baseline)
        for part in ("validation", "test"):
            if not any(len(getattr(site, part)) for site in sites.values()):
                raise DataUnfit(
                    f"no site has a {part} lesion: a class needs at least three lesions at a site "
                    "to be split; use fewer sites (--sites) or more data (--data)"
                )
        for site in sites.values():
            SiteFolder(folder / site.name).write(site)
        write_atomically(done, json.dumps(sorted(sites)).encode())
    return [folder / name for name in json.loads(done.read_text())]


def _site_data(
    name: str,
    images: list[LesionImage],
    settings: DataSettings,
    cache: Path | None,
    crop: Cropping,
) -> SiteData:
    """One site's lesions split into parts; new cases and the new class moved to arrivals."""
    classes = ClassMap(settings.classes)
    parts = prepared_parts(name, images, classes, settings.seed, settings.size, cache, crop)
    train, arrivals, rounds = _arrivals(name, parts["train"], classes, settings)
    if not len(train):
        raise DataUnfit(
            f"site {name} has no training cases; use fewer sites (--sites) or more data (--data)"
        )
    shares = name not in settings.keep_neurons
    made = replace(settings.crop_choice, made=crop.name)
    return SiteData(
        name, classes, train, parts["validation"], parts["test"], arrivals, rounds, shares, made
    )


def _arrivals(
    name: str, train: Cases, classes: ClassMap, settings: DataSettings
) -> tuple[Cases, Cases, NDArray[np.int64]]:
    """Training cases, arriving cases and the round in which each arrives.

    Whole lesions arrive, spread evenly over the rounds. A new class leaves every site's training
    cases; at its site its lesions arrive from its round on.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "arrivals", name))
    lesions = np.array(sorted(set(train.lesion_ids)))
    chosen = rng.permutation(lesions)[: round(settings.arrivals * len(lesions))]
    arrives: dict[str, int] = {
        str(lesion): 1 + index * settings.rounds // max(len(chosen), 1)
        for index, lesion in enumerate(chosen)
    }
    dropped: set[str] = set()
    new = settings.new_class
    if new is not None:
        index = classes.index(new.code)
        held = sorted(
            {i for i, y in zip(train.lesion_ids, train.labels, strict=True) if y == index}
        )
        if new.site == name:
            if not held:
                raise DataUnfit(
                    f"--new-class: {name} has no training lesion of {new.code}; name another site"
                )
            left = settings.rounds - new.round + 1
            ordered = [str(v) for v in rng.permutation(np.array(held, np.str_))]
            arrives |= {
                lesion: new.round + position * left // max(len(ordered), 1)
                for position, lesion in enumerate(ordered)
            }
        else:
            dropped = set(held)
            arrives = {lesion: r for lesion, r in arrives.items() if lesion not in dropped}
    stays = [i for i, v in enumerate(train.lesion_ids) if v not in arrives and v not in dropped]
    comes = [i for i, lesion in enumerate(train.lesion_ids) if lesion in arrives]
    comes.sort(key=lambda i: (arrives[train.lesion_ids[i]], i))
    return (
        train.subset(np.array(stays, np.int64)),
        train.subset(np.array(comes, np.int64)),
        np.array([arrives[train.lesion_ids[i]] for i in comes], np.int64),
    )


def _for_baseline(data: dict[str, SiteData], baseline: str) -> dict[str, SiteData]:
    """The sites of a run: all, or one that stands for a baseline.

    Both baselines are judged on the test lesions of all sites.
    """
    if not baseline:
        return data
    sites = list(data.values())
    test = Cases.concatenate([site.test for site in sites])
    if baseline == POOLED:
        order = np.argsort(np.concatenate([s.arrival_rounds for s in sites]), kind="stable")
        pooled = SiteData(
            POOLED,
            sites[0].classes,
            Cases.concatenate([s.train for s in sites]),
            Cases.concatenate([s.validation for s in sites]),
            test,
            Cases.concatenate([s.arrivals for s in sites]).subset(order),
            np.concatenate([s.arrival_rounds for s in sites])[order],
            crop=sites[0].crop,
        )
        return {POOLED: pooled}
    own = data[baseline]
    alone = replace(own, test=test, shares_neurons=True)
    return {baseline: alone}
