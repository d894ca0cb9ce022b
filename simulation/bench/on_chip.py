"""Measurements of on-chip learning, on the spikes of trained networks.

A learning layer's potentials are integers: connections that spike, less a threshold. They are
computed here from spikes that Akida's backend made, as the layer itself would from the same spikes
(tests/akida_runtime compares the two); what Akida's own rule learns, Akida's backend learns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import LearningProgram, Program
from common.neurons import Neurons, connections_of
from edge_client.acceptance import balanced_accuracy
from edge_client.decision import combined_scores
from edge_client.late_classes import KnownClasses
from edge_client.learning_parameters import learning_parameters
from edge_client.prototypes import class_balanced, discriminative_prototypes, strongest
from server.neuron_exchange import MOST_KEPT
from simulation.bench.networks import Seen

Labels = NDArray[np.int64]
Spikes = NDArray[np.uint8]


def recalls(found: Labels, labels: Labels) -> dict[int, float]:
    """Share of each class's cases that were recognised."""
    return {int(k): float((found[labels == k] == k).mean()) for k in np.unique(labels)}


def mean_recall(found: Labels, labels: Labels) -> float:
    """Balanced accuracy; every class of ``labels`` counts the same."""
    value = balanced_accuracy(found == labels, [str(k) for k in labels])
    assert value is not None
    return value


def drawn(labels: Labels, per_class: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of at most ``per_class`` cases of each class, drawn at random."""
    order = rng.permutation(len(labels))
    return np.concatenate([order[labels[order] == k][:per_class] for k in np.unique(labels)])


def herded(
    spikes: Spikes, labels: Labels, per_class: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices chosen by herding: their mean follows the class's mean (Welling, ICML 2009)."""
    del rng
    chosen: list[int] = []
    for k in np.unique(labels):
        members = np.flatnonzero(labels == k)
        points = spikes[members].astype(np.float64)
        total, left = np.zeros(points.shape[1]), np.ones(len(members), bool)
        for step in range(1, min(per_class, len(members)) + 1):
            distance = ((points.mean(axis=0) * step - total - points) ** 2).sum(axis=1)
            best = int(np.where(left, distance, np.inf).argmin())
            left[best] = False
            total += points[best]
            chosen.append(int(members[best]))
    return np.array(chosen, np.int64)


def by_akidas_rule(
    program: Program, spikes: Spikes, labels: Labels, n_classes: int, passes: int, seed: int
) -> LearningProgram:
    """A learning layer that Akida's own rule taught, as BrainChip advises for its settings."""
    chosen = learning_parameters(spikes, labels, n_classes)
    learner = LearningProgram.create(
        program,
        n_classes,
        chosen.neurons_per_class,
        chosen.num_weights,
        chosen.competition,
        seed,
    )
    order = np.random.default_rng(seed).permutation(len(labels))
    shape = (len(labels), *program.input_shape)
    for _ in range(passes):
        learner.learn(np.zeros(shape, np.uint8), labels[order], spikes[order])
    return learner


@dataclass(frozen=True)
class HeadRow:
    """Balanced accuracy of one way to decide, a value for each network and draw."""

    name: str
    validation: list[float]
    test: list[float]


def head_rows(
    program: Program, parts: Mapping[str, Seen], n_classes: int, seed: int, draws: int
) -> list[HeadRow]:
    """Every way to decide, on one network: heads alone, exemplar choices, and combinations."""
    train = parts["train"]
    ways: dict[str, Callable[[np.random.Generator, Seen], Labels]] = {
        "quantized head of the program": lambda rng, seen: seen.scores.argmax(axis=1)
    }

    def rule(passes: int, per_class: int) -> Callable[[np.random.Generator, Seen], Labels]:
        def decide(rng: np.random.Generator, seen: Seen) -> Labels:
            kept = drawn(train.labels, per_class, rng)
            learner = by_akidas_rule(
                program, train.spikes[kept], train.labels[kept], n_classes, passes, seed
            )
            return np.asarray(learner.classify_spikes(seen.spikes).argmax(axis=1))

        return decide

    def prototypes(
        choose: str, per_class: int, thresholds: bool = True, together: bool = False
    ) -> Callable[[np.random.Generator, Seen], Labels]:
        def decide(rng: np.random.Generator, seen: Seen) -> Labels:
            kept = (
                drawn(train.labels, per_class, rng)
                if choose == "random"
                else herded(train.spikes, train.labels, per_class, rng)
            )
            weights = connections_of(train.spikes.shape[1])
            neurons = discriminative_prototypes(
                train.spikes[kept], train.labels[kept], n_classes, weights
            )
            if not thresholds:
                neurons = Neurons(neurons.weights, np.zeros_like(neurons.thresholds))
            answers = neurons.answers(seen.spikes).astype(np.float32)
            if together:
                answers = combined_scores(seen.scores, answers, weights)
            return np.asarray(answers.argmax(axis=1))

        return decide

    for per_class in (25, 50):
        ways[f"Akida's rule, {per_class} exemplars"] = rule(1, per_class)
    ways["Akida's rule, 50 exemplars, 3 passes"] = rule(3, 50)
    for per_class in (10, 25, 50, 100):
        ways[f"prototypes, {per_class} exemplars"] = prototypes("random", per_class)
    ways["prototypes, 50 exemplars by herding"] = prototypes("herding", 50)
    ways["prototypes, 50 exemplars, no thresholds"] = prototypes("random", 50, thresholds=False)
    ways["both heads, 100 exemplars"] = prototypes("random", 100, together=True)

    rows = []
    for name, decide in ways.items():
        scores: dict[str, list[float]] = {"validation": [], "test": []}
        for draw in range(draws):
            for part, values in scores.items():
                seen = parts[part]
                found = decide(np.random.default_rng([seed, draw]), seen)
                values.append(mean_recall(found, seen.labels))
        rows.append(HeadRow(name, scores["validation"], scores["test"]))
    return rows


@dataclass(frozen=True)
class Taught:
    """What teaching one class at one site did, each on lesions that nobody learned from.

    ``recall`` of the new class at the teaching site, ``recall_elsewhere`` at a site that got its
    neuron, and what the other classes' balanced accuracy became in each (negative: lost).
    ``change_together`` is the same with both heads at the teaching site, ``change_global`` with the
    program's head for the known classes and the chip's for the new one; the recall does not change
    with either, since a class that the chip alone knows wins where the chip prefers it.
    ``averaged`` is what is found elsewhere if the sites' layers are averaged element by element.
    ``recall_within_a_point`` is `best_recall` of the chip's head at the teaching site.
    """

    recall: float
    change: float
    recall_within_a_point: float
    change_together: float
    change_global: float
    recall_elsewhere: float
    change_elsewhere: float
    recall_averaged: float
    change_averaged: float


def teach(
    train: Seen, judged: Seen, new: int, n_cases: int, per_class: int, seed: int, draw: int
) -> Taught:
    """Teach class ``new``, which the network does not know, with ``n_cases`` cases at one site.

    The training lesions are dealt to two sites; one has the new class's cases. Labels index all
    classes, ``new`` the last one.
    """
    rng = np.random.default_rng([seed, new, draw])
    half = rng.permutation(len(train.labels)) % 2 == 0
    weights = connections_of(train.spikes.shape[1])
    known = train.labels != new

    def exemplars(chosen: NDArray[np.bool_]) -> tuple[Spikes, Labels]:
        indices = np.flatnonzero(chosen)
        kept = indices[drawn(train.labels[indices], per_class, rng)]
        return train.spikes[kept], train.labels[kept]

    own, own_labels = exemplars(half & known)
    other, other_labels = exemplars(~half & known)
    cases = rng.permutation(np.flatnonzero(train.labels == new))[:n_cases]

    here = KnownClasses.of(own, own_labels, new, weights)
    taught = here.taught(train.spikes[cases], weights)
    before, after = here.neurons, Neurons.joined([here.neurons, taught])
    there = KnownClasses.of(other, other_labels, new, weights)
    elsewhere, arrived = there.neurons, there.limit(taught)
    averaged = _averaged(after, elsewhere, weights, rng)

    def judge(neurons: Neurons, base: Neurons) -> tuple[float, float]:
        found = neurons.answers(judged.spikes).argmax(axis=1)
        plain = base.answers(judged.spikes).argmax(axis=1)
        return _recall_and_change(found, plain, judged.labels, new)

    chip = after.answers(judged.spikes).astype(np.float32)
    chip_before = before.answers(judged.spikes).astype(np.float32)
    together = combined_scores(judged.scores, chip, weights).argmax(axis=1)
    together_before = combined_scores(judged.scores, chip_before, weights).argmax(axis=1)
    by_program = judged.scores.argmax(axis=1)
    preferred = np.where(chip.argmax(axis=1) == new, new, by_program)
    return Taught(
        *judge(after, before),
        best_recall(chip, judged.labels, new),
        _recall_and_change(together, together_before, judged.labels, new)[1],
        _recall_and_change(preferred, by_program, judged.labels, new)[1],
        *judge(Neurons.joined([elsewhere, arrived]), elsewhere),
        *judge(averaged, elsewhere),
    )


A_POINT = 0.01
"""What the other classes may lose of their balanced accuracy."""


def best_recall(scores: NDArray[np.float32], labels: Labels, new: int) -> float:
    """Recall of class ``new`` at the threshold with which the others lose at most a point.

    The threshold is on the class's lead over the best other one and chosen on the judged cases
    themselves: one that must be chosen before will do worse.

    Parameters
    ----------
    scores : float32 array, shape (n, classes)
    labels : int64 array, shape (n,)
    """
    others = np.delete(scores, new, axis=1)
    plain = np.delete(np.arange(scores.shape[1]), new)[others.argmax(axis=1)]
    lead = scores[:, new] - others.max(axis=1)
    old = labels != new
    price = class_balanced(labels[old]) * (plain[old] == labels[old])
    order = np.argsort(-lead[old], kind="stable")
    too_much = np.flatnonzero(np.cumsum(price[order]) > A_POINT + 1e-9)
    threshold = lead[old][order[too_much[0]]] if len(too_much) else -np.inf
    return float((lead[~old] > threshold).mean())


def _recall_and_change(
    found: Labels, before: Labels, labels: Labels, new: int
) -> tuple[float, float]:
    """Recall of the new class, and by how much the other classes' mean recall changed."""
    old = labels != new
    change = mean_recall(found[old], labels[old]) - mean_recall(before[old], labels[old])
    return float((found[labels == new] == new).mean()), change


def _averaged(
    teaching: Neurons, other: Neurons, num_weights: int, rng: np.random.Generator
) -> Neurons:
    """The element-wise mean of two sites' layers, its strongest connections kept.

    The other site's neuron of the class that it does not know is as Akida draws one: at random.
    """
    spikes = teaching.weights.shape[0]
    random = np.zeros((spikes, 1), np.uint8)
    random[rng.choice(spikes, num_weights, replace=False)] = 1
    padded = np.concatenate([other.weights, random], axis=1)
    mean = (teaching.weights + padded) / 2 + rng.random(padded.shape) * 1e-3
    thresholds = (teaching.thresholds + np.append(other.thresholds, 0)) // 2
    return Neurons(strongest(mean, num_weights), thresholds.astype(np.int32))


@dataclass(frozen=True)
class Poisoned:
    """Change of balanced accuracy at a site that takes over well-formed hostile neurons."""

    unlimited: float
    limited: float


def poison(train: Seen, judged: Seen, new: int, per_class: int, seed: int, draw: int) -> Poisoned:
    """A hostile site claims a new class and sends the neurons of the largest one for it.

    Their thresholds are as low as validation lets pass. "unlimited" takes them as they are, up to
    the server's cap; "limited" as a site does.
    """
    rng = np.random.default_rng([seed, 1000 + draw])
    weights = connections_of(train.spikes.shape[1])
    indices = np.flatnonzero(train.labels != new)
    kept = indices[drawn(train.labels[indices], per_class, rng)]
    spikes, labels = train.spikes[kept], train.labels[kept]
    known = KnownClasses.of(spikes, labels, new, weights)
    own = known.neurons
    largest = int(np.bincount(train.labels[indices]).argmax())
    targets = [largest, *(k for k in range(new) if k != largest)][:MOST_KEPT]
    hostile = Neurons(own.chosen(targets).weights, np.full(len(targets), -weights, np.int32))
    old = judged.labels != new
    seen, truth = judged.spikes[old], judged.labels[old]
    before = mean_recall(own.answers(seen).argmax(axis=1), truth)

    def after(neurons: Neurons) -> float:
        answers = np.concatenate(
            [own.answers(seen), neurons.answers(seen).max(axis=1, keepdims=True)], axis=1
        )
        return mean_recall(answers.argmax(axis=1), truth) - before

    return Poisoned(after(hostile), after(known.limit(hostile)))


def wear(
    program: Program, train: Seen, judged: Seen, n_classes: int, per_class: int, seed: int
) -> dict[str, list[tuple[int, float]]]:
    """Balanced accuracy after cases that were learned one by one, for both ways to learn.

    Prototypes of a store that takes in every case by its rank, and Akida's own rule.
    """
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(train.labels))
    first = order[drawn(train.labels[order], per_class // 2, rng)]
    later = np.setdiff1d(order, first, assume_unique=True)
    later = rng.permutation(later)[:1000]
    ranks = rng.random(len(train.labels))
    weights = connections_of(train.spikes.shape[1])
    learner = by_akidas_rule(program, train.spikes[first], train.labels[first], n_classes, 1, seed)
    curve: dict[str, list[tuple[int, float]]] = {"prototypes": [], "Akida's rule": []}
    steps = (0, 10, 30, 100, 300, 1000)
    for before, count in zip((0, *steps), steps, strict=False):
        seen_so_far = np.concatenate([first, later[:count]])
        by_rank = seen_so_far[np.argsort(ranks[seen_so_far], kind="stable")]
        kept = np.concatenate(
            [by_rank[train.labels[by_rank] == k][:per_class] for k in range(n_classes)]
        )
        neurons = discriminative_prototypes(
            train.spikes[kept], train.labels[kept], n_classes, weights
        )
        found = neurons.answers(judged.spikes).argmax(axis=1)
        curve["prototypes"].append((count, mean_recall(found, judged.labels)))
        for case in later[before:count]:
            empty = np.zeros((1, *program.input_shape), np.uint8)
            learner.learn(empty, train.labels[[case]], train.spikes[[case]])
        found = learner.classify_spikes(judged.spikes).argmax(axis=1)
        curve["Akida's rule"].append((count, mean_recall(found, judged.labels)))
    return curve
