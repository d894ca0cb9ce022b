"""A page that shows what SMOTE makes of a site's training cases."""

import base64
import html
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.smote import Oversampled

SHOWN = 8
"""Of each class: so many real images, and so many new ones with their parents."""

_SIDE = 96
"""Pixels on the page."""

_STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:2rem;max-width:72rem;color:#222;background:#fff}
h2{margin:2rem 0 .3rem} p{margin:.3rem 0;max-width:60rem}
.row{display:flex;flex-wrap:wrap;gap:.5rem}
figure{margin:.3rem .6rem .3rem 0} figcaption{font-size:12px;color:#555}
.of img+img{margin-left:3px} .of img:last-of-type{margin-left:.5rem;outline:2px solid #06c}
"""


def smote_sheet(found: Oversampled, codes: tuple[str, ...], title: str, seed: int) -> str:
    """An HTML page without links to anything else; it holds images of the cases.

    For each class: some real images, then new ones, each after the two that it was made of.

    Parameters
    ----------
    found : Oversampled
    codes : tuple of str
        Class codes in index order.
    title : str
    seed : int
        Of the choice of what is shown.
    """
    n_real = len(found.cases) - len(found.parents)
    rng = np.random.default_rng(seed)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p>{n_real} training cases, {len(found.parents)} made; classes are filled up to "
        f"{found.target} in a whitened space of {found.components} components. Of each class: "
        "real images; then new ones (outlined) after the two that they lie between, with "
        "these two's shares. Images of patients: keep this page where their pictures may be "
        "kept.</p>",
    ]
    for label, code in enumerate(codes):
        outcome = found.outcomes[label]
        of_class = found.cases.labels == label
        real = np.flatnonzero(of_class[:n_real])
        new = np.flatnonzero(of_class[n_real:])
        parts.append(
            f"<h2>{html.escape(code)}</h2><p>{outcome.cases} real, {outcome.made} made "
            f"({outcome.outcome})</p>"
        )
        parts.append(f"<div class=row>{''.join(_figures(found, _some(real, rng)))}</div>")
        shown = (_mixture(found, int(number)) for number in _some(new, rng))
        parts.append(f"<div class=row>{''.join(shown)}</div>")
    return "\n".join(parts) + "\n"


def _some(positions: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(positions)[:SHOWN])


def _figures(found: Oversampled, positions: NDArray[np.int64]) -> list[str]:
    return [f"<figure>{_picture(found.cases.images[p], 'real')}</figure>" for p in positions]


def _mixture(found: Oversampled, number: int) -> str:
    """The two parents of a new case and itself."""
    first, second = found.parents[number]
    share = float(found.mixing[number])
    images = found.cases.images
    new = images[len(images) - len(found.parents) + number]
    return (
        f"<figure class=of>{_picture(images[first], 'real')}{_picture(images[second], 'real')}"
        f"{_picture(new, 'new')}<figcaption>{100 * (1 - share):.0f} % and {100 * share:.0f} %"
        "</figcaption></figure>"
    )


def _picture(pixels: NDArray[np.uint8], alt: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    content = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt={alt} width={_SIDE} height={_SIDE} src="data:image/png;base64,{content}">'
