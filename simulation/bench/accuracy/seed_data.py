"""The cases of a seed: sites by source, whole lesions of each split as in a simulated run."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.classes import ClassMap
from common.data.augmentation import augment
from common.data.cases import Cases
from common.data.smote import SHARE
from common.errors import SettingsError
from common.files import write_atomically
from common.saliency.choice import Tell
from common.seeds import derive_seed
from edge_client.oversampling import oversampled
from edge_client.site import PARTS, SiteData, SiteFolder
from simulation.bench.accuracy.rows import LEAKY, Row
from simulation.bench.records import check_same, hash_of_cases
from simulation.sites import DataSettings, is_made_up, write_sites

VIEWS = 4
"""Of every image in the leaky protocol."""

LEAKY_TRAINING = 0.8
"""Share of the views that the leaky protocol trains on (public code of arXiv 2507.15958)."""

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class SeedCases:
    """What a row trains on and is judged by.

    Parameters
    ----------
    codes : tuple of str
    train : Cases
    real : Cases
        Those of ``train`` that SMOTE did not make.
    validation : Cases
        Empty for the leaky protocol, which has none.
    test : Cases
    test_sites : tuple of str
        The site of every test case.
    """

    codes: tuple[str, ...]
    train: Cases
    real: Cases
    validation: Cases
    test: Cases
    test_sites: tuple[str, ...]

    def overlap(self) -> dict[str, float]:
        """Shares of the test images whose lesion, and whose image, is trained on as well."""
        lesions, images = set(self.train.lesion_ids), set(self.train.case_ids)
        n = max(len(self.test), 1)
        return {
            "lesions": sum(lesion in lesions for lesion in self.test.lesion_ids) / n,
            "images": sum(image in images for image in self.test.case_ids) / n,
        }

    def test_hash(self) -> str:
        """SHA-256 over the test images' ids and labels: equal ones make rows comparable."""
        return hash_of_cases(self.test)


def data_name(data: str) -> str:
    """What a data set is called in records, without where it lies."""
    return data if is_made_up(data) else Path(data).resolve().name


def seed_cases(
    row: Row,
    data: str,
    seed: int,
    classes: ClassMap,
    size: int,
    out: Path,
    saliency_weights: str = "",
    tell: Tell = lambda done, total: None,
) -> SeedCases:
    """The cases of a row; the sites are kept in ``out`` and found there again.

    Raises
    ------
    SettingsError
        No such site, or the folder of the sites is of other data.
    DataError
        As `write_sites`.
    """
    settings = DataSettings(
        data=data,
        sites="source",
        classes=classes.codes,
        seed=seed,
        rounds=1,
        arrivals=0.0,
        size=size,
        crop=row.crop,
        saliency_weights=saliency_weights,
    )
    folder = out / f"sites-{seed}{'' if row.crop == 'centre' else f'-{row.crop}'}"
    _claim(settings, folder)
    # Where lesions are takes minutes to find: kept for other seeds, and where this is stopped.
    cache = out / "cache" if row.crop in ("saliency", "grad-cam") else None
    sites = {path.name: SiteFolder(path) for path in write_sites(settings, folder, cache, tell)}
    read = {name: site.read() for name, site in sites.items()}
    if row.site and row.site not in read:
        raise SettingsError(f"--site {row.site}: no such site; there are {', '.join(read)}")
    if row.name == LEAKY:
        return _leaky(list(read.values()), seed)
    trained = [row.site] if row.site else list(read)
    parts = [
        oversampled(read[name].train, classes.codes, name, SHARE, sites[name].path)
        if row.smote
        else read[name].train
        for name in trained
    ]
    return SeedCases(
        classes.codes,
        Cases.concatenate(parts),
        Cases.concatenate([read[name].train for name in trained]),
        Cases.concatenate([read[name].validation for name in trained]),
        Cases.concatenate([site.test for site in read.values()]),
        tuple(name for name, site in read.items() for _ in range(len(site.test))),
    )


def _claim(settings: DataSettings, folder: Path) -> None:
    """Note what the sites in a folder are made of; SettingsError where it was something else."""
    file = folder / _SETTINGS
    about = settings.model_dump(mode="json")
    about["data"] = data_name(settings.data)
    about["saliency_weights"] = Path(settings.saliency_weights).name
    if file.exists():
        check_same(json.loads(file.read_text()), about, file)
    else:
        write_atomically(file, json.dumps(about).encode())


def _leaky(sites: list[SiteData], seed: int) -> SeedCases:
    """Views of all images first, then a split of single views: training has seen what is tested.

    The protocol of the public code of arXiv 2507.15958, made again to show what it is worth.
    """
    parts = [(site.name, getattr(site, part)) for site in sites for part in PARTS]
    cases = Cases.concatenate([part for _, part in parts])
    names = np.array([name for name, part in parts for _ in range(len(part))], np.str_)
    train, test = leaky_split(len(cases), seed)
    rng = np.random.default_rng(derive_seed(seed, "leaky", "views"))
    views = [augment(cases.images, rng) for _ in range(VIEWS)]
    images = np.concatenate(views)
    none = np.zeros(0, np.int64)

    def seen(chosen: NDArray[np.int64]) -> Cases:
        own = cases.subset(chosen % len(cases))
        return Cases(images[chosen], own.labels, own.case_ids, own.lesion_ids)

    test_sites = tuple(str(name) for name in names[test % len(cases)])
    trained = seen(train)
    codes = sites[0].classes.codes
    return SeedCases(codes, trained, trained, seen(none), seen(test), test_sites)


def leaky_split(n_images: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions int64 of the views to train and to test on, drawn at random.

    View v of image i is at v * n_images + i.
    """
    rng = np.random.default_rng(derive_seed(seed, "leaky", "split"))
    order = rng.permutation(VIEWS * n_images)
    n_train = round(LEAKY_TRAINING * len(order))
    return order[:n_train], order[n_train:]
