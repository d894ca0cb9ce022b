"""Offsets of the classes' logits, by which a network answers all classes alike.

Logit adjustment (arXiv 2007.07314) is to give logits as of classes that are equally frequent. Over
unlike sites it does so at each of them, and their mean does not: a site that lacks a class pushes
it down in every step, so classes that few sites have are answered too rarely. An offset for each
class, added to the head's bias, makes up for it. With all classes weighed alike the loss

    L(b) = -mean over classes of mean over their cases of log softmax(logits + b)[class]

is convex in b, and where its gradient m - 1/K is 0 every class is answered as often as it is there
(K classes; m is the mean probability of each). Where there are too few cases of some classes, the
others are made equally frequent among themselves. Newton's step needs the mean of p p' over single
cases; with that of the classes' mean p in its place the curvature is overestimated, so a step is
at most too short, and sites need tell nothing but sums over classes.
"""

import numpy as np
from numpy.typing import NDArray

from common.answers_by_class import AnswersByClass

STEPS = 3
"""After three steps the offsets of networks trained on HAM10000's sources are within 0.04 of where
they end."""

FEWEST = 10
"""A class with fewer training cases at all sites together keeps its logits, and moves no others."""

MOST = 3.0
"""No offset is larger: what sites say of their cases cannot be checked."""


def next_offsets(offsets: NDArray[np.float64], answers: AnswersByClass) -> NDArray[np.float64]:
    """Offsets, float64 (n_classes,), one step on from those that ``answers`` were given with.

    The offsets of the classes that have `FEWEST` cases have the mean 0 but where one is at the
    limit; all others are 0.
    """
    chosen = np.flatnonzero(answers.counts >= FEWEST)
    found = np.zeros(len(offsets))
    if len(chosen) < 2:
        return found
    means = answers.shares[chosen] / answers.counts[chosen, None]
    means = means[:, chosen]
    answered = means.mean(axis=0)
    curvature = np.diag(answered) - means.T @ means / len(chosen)
    # Where all classes have cases it is singular along equal offsets, up to rounding.
    inverse = np.linalg.pinv(curvature, rcond=1e-9, hermitian=True)
    step = inverse @ (answered.mean() - answered)
    moved = offsets[chosen] + np.clip(step - step.mean(), -MOST, MOST)
    found[chosen] = np.clip(moved - moved.mean(), -MOST, MOST)
    return found
