"""The rows that `fedqana bench accuracy run` can make, as plain values; nothing heavy is imported.

Every row is QANA in float on all sites' training lesions together but for what it names.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from common.errors import SettingsError
from common.qana.config import ELEMENTS, Element

if TYPE_CHECKING:
    from common.saliency.choice import CropName

Graph = Literal["qana", "plain-convolutions", "resnet18"]
"""The float networks: QANA, QANA without Ghost features, and ResNet-18."""

ALONE = "alone"
LEAKY = "leaky"
POOLED = "pooled"
RESNET18: Graph = "resnet18"

MIXUP_ALPHA = 0.2
"""Of the Beta distribution, as for ImageNet in Zhang et al., arXiv 1710.09412."""


@dataclass(frozen=True)
class Row:
    """How a row's network is built and trained.

    Parameters
    ----------
    name : str
        Of the row; records, files and tables call it that.
    graph : Graph
    elements : tuple of Element, or None
        QANA's elements; None for those of the network that is asked for.
    views_of : str
        The row whose network is judged by the mean over the symmetries, instead of one trained.
    prior_strength : float
        tau of the logit adjustment (arXiv 2007.07314); 0 switches it off.
    smote : bool
        Each site's smaller classes are filled by SMOTE, as in a run with ``--balance smote``.
    augmented : bool
        A new random view of every image in every epoch.
    mixup : float
        alpha of mixup; 0 for none.
    crop : CropName
        What of each image the network sees.
    site : str
        The only site that is trained on, or empty for all of them.
    """

    name: str
    graph: Graph = "qana"
    elements: tuple[Element, ...] | None = None
    views_of: str = ""
    prior_strength: float = 1.0
    smote: bool = False
    augmented: bool = True
    mixup: float = 0.0
    crop: "CropName" = "centre"
    site: str = ""

    @property
    def network(self) -> str:
        """What records call the row's network, and the order of its images is drawn by.

        The row's name where that says which element is left out, else the graph.
        """
        return self.graph if self.elements in (None, ELEMENTS) else self.name


def _without(element: Element) -> tuple[Element, ...]:
    return tuple(other for other in ELEMENTS if other != element)


_ROWS = (
    Row(POOLED),
    Row("test-flips", views_of=POOLED),
    Row(RESNET18, graph=RESNET18),
    Row("resnet18-flips", graph=RESNET18, views_of=RESNET18),
    Row(ALONE),
    Row("alone-flips", views_of=ALONE),
    Row("all-elements", elements=ELEMENTS),
    Row("no-attention", elements=_without("attention")),
    Row("no-se", elements=_without("excitation")),
    Row("no-residual", elements=_without("residual")),
    Row("plain-convolutions", graph="plain-convolutions"),
    Row("no-logit-adjustment", prior_strength=0.0),
    Row("smote", prior_strength=0.0, smote=True),
    Row("smote-and-logit-adjustment", smote=True),
    Row("crop-whole", crop="whole"),
    Row("crop-saliency", crop="saliency"),
    Row("crop-grad-cam", crop="grad-cam"),
    Row("crop-mask", crop="mask"),
    Row("no-augmentation", augmented=False),
    Row("mixup", mixup=MIXUP_ALPHA),
    Row(LEAKY, augmented=False),
)
ROW_NAMES = tuple(row.name for row in _ROWS)


def row_of(name: str, site: str = "") -> Row:
    """The row of a name in `ROW_NAMES`; "alone" needs a site, which becomes part of its name.

    Raises SettingsError where a site is missing, or given to a row that has none.
    """
    row = next(row for row in _ROWS if row.name == name)
    if ALONE in (name, row.views_of):
        if not site:
            raise SettingsError(f"{name}: say which site is trained on with --site")
        return replace(row, name=f"{name}-{site}", site=site)
    if site:
        raise SettingsError(f"--site goes with the row '{ALONE}', not with '{name}'; leave it out")
    return row


def base_of(row: Row) -> Row:
    """The row whose network one of eight views is judged by; itself for any other."""
    return row_of(row.views_of, row.site) if row.views_of else row
