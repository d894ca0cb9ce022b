"""Contact sheets of a simulated run: what its crop and SMOTE made of the sites' images."""

from contextlib import suppress
from pathlib import Path

from common.classes import ClassMap
from common.data.smote_sheet import smote_sheet
from common.errors import DataNotFound
from common.files import write_atomically
from common.saliency.crops import SaliencyCrop
from common.saliency.quality import boxed
from common.saliency.sheet import SheetCase, sample_for_sheet, write_sheet
from edge_client.oversampling import FILE, last_made
from edge_client.site import SiteFolder
from server.report.build import SHEETS
from server.run_folder import RunFolder
from simulation.run import stored_settings
from simulation.sites import DataSettings, read_images

EACH = 2
"""Images of each class and source on the sheet of a crop."""

_READABLE_BY_OWNER = 0o600


def write_contact_sheets(folder: Path) -> list[Path]:
    """Write the sheets of a run in ``folder`` / `SHEETS`, where it crops by saliency or uses SMOTE.

    They hold images of the sites' lesions, so they are readable by their owner only and stay in
    the run's folder, where the sites' images are. What is there is not made again. There is no
    sheet of crops where the data's folder is gone by then. Raises StorageFull.

    Returns
    -------
    list of Path
        The files; empty where a run crops without looking for the lesion and fills no class.
    """
    plan, settings = RunFolder(folder).stored_plan().plan, stored_settings(folder)
    made = []
    if settings.crop in ("saliency", "grad-cam"):
        file = folder / SHEETS / "crops.html"
        with suppress(DataNotFound):
            if not file.exists():
                _crops(settings, folder.parent / "cache", file)
            made.append(file)
    if plan.balance == "smote":
        for site in sorted((folder / "sites").glob(f"*/{FILE}")):
            file = folder / SHEETS / f"smote-{site.parent.name}.html"
            if file.exists() or _smote(SiteFolder(site.parent), file):
                made.append(file)
    return made


def _crops(settings: DataSettings, cache: Path, file: Path) -> None:
    images = read_images(settings.data, settings.seed, ClassMap(settings.classes))
    sample = sample_for_sheet(images, EACH)
    crop = settings.cropping(cache)
    assert isinstance(crop, SaliencyCrop)
    found = zip(sample, boxed(sample, {settings.crop: crop}), strict=True)
    cases = [SheetCase(image, boxes) for image, (_, boxes) in found]
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_sheet(cases, file, f"Crops of {settings.name}", settings.size)


def _smote(site: SiteFolder, file: Path) -> bool:
    """Whether there was something to show."""
    made = last_made(site)
    if made is None:
        return False
    page = smote_sheet(*made, f"SMOTE at {site.path.name}", seed=0)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(file, page.encode(), _READABLE_BY_OWNER)
    return True
