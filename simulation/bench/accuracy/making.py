"""Making a record: the cases of a seed, a network trained on them, judged once at the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.arrays import from_npz, to_npz
from common.classes import HAM10000_CLASSES, ClassMap
from common.data.smote import SHARE
from common.errors import ModelNotFound, SettingsError
from common.files import write_atomically
from common.keras_setup import keras, tf
from common.qana.config import DEMO_CONFIG, ELEMENTS, QanaConfig
from common.qana.initial import PRETRAINED, RANDOM, initial_content, start_from, start_id
from common.qana.weights import named_weights, set_weights
from common.saliency.choice import Tell
from common.seeds import derive_seed
from common.test_time_views import SYMMETRIES, over_symmetries
from simulation.bench.accuracy.central_training import CentralTrainer, Epoch, Schedule
from simulation.bench.accuracy.graphs import build_graph
from simulation.bench.accuracy.judging import Scores, judge, shown_accuracy
from simulation.bench.accuracy.records import found_record, record_file, stem_of, write_record
from simulation.bench.accuracy.rows import LEAKY, RESNET18, Row, base_of
from simulation.bench.accuracy.seed_data import VIEWS, SeedCases, data_name, seed_cases
from simulation.bench.records import Record, size_of, software_versions

FLOAT32 = "TensorFlow float32 on CPU"
BFLOAT16 = "TensorFlow bfloat16 (oneDNN mixed precision) on CPU"


@dataclass(frozen=True)
class Options:
    """How records are made; the defaults of ``schedule`` are those of docs/benchmarks.md.

    ``network`` is QANA's shape, with the elements of rows that name none. ``schedule`` holds
    epochs, batch, learning rate and batch norm's share; the rest of it is the row's. ``initial`` is
    "random", "pretrained" or a file of weights that QANA starts from. ``tell`` gets lines of
    progress, ``finding`` the progress of a saliency crop.
    """

    data: str
    out: Path
    classes: ClassMap = HAM10000_CLASSES
    network: QanaConfig = field(default_factory=QanaConfig)
    schedule: Schedule = field(default_factory=Schedule)
    saliency_weights: str = ""
    bfloat16: bool = False
    initial: str = RANDOM
    tell: Callable[[str], None] = lambda line: None
    finding: Tell = lambda done, total: None

    def config(self, row: Row) -> QanaConfig:
        """QANA's shape, with the elements that the row names."""
        if row.elements is None:
            return self.network
        return self.network.model_copy(update={"elements": row.elements})

    def initial_content(self, row: Row) -> bytes:
        """The file that QANA starts from, empty for random weights; raises as its reader."""
        return initial_content(self.initial, self.config(row))


def make_record(row: Row, seed: int, options: Options) -> Record:
    """The record of a row and seed, from ``options.out`` where it was made before.

    Raises
    ------
    SettingsError
        One that was made otherwise is there; options that do not go with the row.
    ModelNotFound
        The weights of the row whose network is judged by eight views are not there.
    DataError
        As `seed_cases`.
    """
    if options.bfloat16 and row.graph != RESNET18:
        raise SettingsError(f"--bfloat16 goes with the row 'resnet18', not with '{row.name}'")
    if options.initial != RANDOM and row.graph != "qana":
        raise SettingsError(f"--initial goes with QANA, not with '{row.name}'; leave it out")
    config = options.config(row)
    settings = _settings(row, options)
    found = found_record(options.out, row.name, seed, settings)
    if found is not None:
        return found
    cases = seed_cases(
        row, options.data, seed, options.classes, config.input_size, options.out,
        options.saliency_weights, options.finding,
    )  # fmt: skip
    started = time.perf_counter()
    _use_bfloat16(options.bfloat16)
    first = derive_seed(seed, "bench", "weights")
    model = build_graph(row.graph, config, len(cases.codes), first)
    if content := options.initial_content(row):
        set_weights(model, start_from(content, config, len(cases.codes), first))
    about: Record = {
        "row": row.name,
        "seed": seed,
        "settings": settings,
        "command": _command(row, seed, options),
        "versions": software_versions(),
        "backend": BFLOAT16 if options.bfloat16 else FLOAT32,
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or "all",
        "parameters": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
        "train": {
            **size_of(cases.real.lesion_ids),
            "made_by_smote": len(cases.train) - len(cases.real),
        },
        "test": {**size_of(cases.test.lesion_ids), "sha256": cases.test_hash()},
        "overlap": cases.overlap(),
    }
    if row.views_of:
        scores, held_scores = _by_all_views(model, row, seed, options, cases)
    else:
        trainer = _trained(model, row, seed, options, cases)
        scores = trainer.logits(cases.test.images)
        held_scores = trainer.logits(cases.validation.images) if len(cases.validation) else None
        write_atomically(_weights_file(options, row, seed), to_npz(named_weights(model)))
    about["result"] = judge(scores, held_scores, cases, row.prior_strength)
    about["seconds"] = round(time.perf_counter() - started, 1)
    write_record(options.out, about)
    _partial_file(options, row, seed).unlink(missing_ok=True)
    return about


def _settings(row: Row, options: Options) -> dict[str, Any]:
    """What two records of one row must have in common to be averaged."""
    schedule = _schedule(row, 0, options)
    settings: dict[str, Any] = {
        "data": data_name(options.data),
        "classes": list(options.classes.codes),
        "sites": "source",
        "network": _name_of(options.network),
        "graph": row.network,
        "epochs": schedule.epochs,
        "batch": schedule.batch,
        "learning_rate": schedule.learning_rate,
        "freeze_batch_norm": schedule.freeze_batch_norm,
        "prior_strength": schedule.prior_strength,
        "augmented": schedule.augmented,
        "mixup": schedule.mixup,
        "smote_share": SHARE if row.smote else 0.0,
        "crop": row.crop,
        "saliency_weights": Path(options.saliency_weights).name,
        "bfloat16": options.bfloat16,
        "initial": start_id(options.initial_content(row)),
    }
    if row.graph != RESNET18 and row.elements is None and options.network.elements != ELEMENTS:
        settings["elements"] = list(options.network.elements)  # records of before have none: all
    if row.views_of:
        settings["symmetries"] = SYMMETRIES
    if row.name == LEAKY:
        settings["views"] = VIEWS
    return settings


def _schedule(row: Row, seed: int, options: Options) -> Schedule:
    """A row's schedule; the leaky protocol's passes are of `VIEWS` times as many images."""
    epochs = options.schedule.epochs
    return replace(
        options.schedule,
        epochs=max(1, round(epochs / VIEWS)) if row.name == LEAKY else epochs,
        prior_strength=row.prior_strength,
        augmented=row.augmented,
        mixup=row.mixup,
        seed=derive_seed(seed, "bench", row.network),
    )


def _trained(
    model: keras.Model, row: Row, seed: int, options: Options, cases: SeedCases
) -> CentralTrainer:
    """The model after its last epoch; validation lesions are looked at, nothing is chosen."""
    trainer, schedule = CentralTrainer(model), _schedule(row, seed, options)

    def told(epoch: Epoch) -> None:
        shown = None
        if len(cases.validation):
            shown = shown_accuracy(trainer.logits(cases.validation.images), cases.validation)
        held = "" if shown is None else f"validation balanced accuracy {shown:.3f}, "
        options.tell(
            f"{row.name} seed {seed} epoch {epoch.number}/{schedule.epochs}: "
            f"loss {epoch.loss:.3f}, {held}{epoch.seconds:.0f} s"
        )

    trainer.train(cases.train, schedule, told, _partial_file(options, row, seed))
    return trainer


def _by_all_views(
    model: keras.Model, row: Row, seed: int, options: Options, cases: SeedCases
) -> tuple[Scores, Scores | None]:
    """Mean logits of test and validation images over the symmetries, by another row's network."""
    base = base_of(row)
    there = found_record(options.out, base.name, seed, _settings(base, options))
    file = _weights_file(options, base, seed)
    if there is None or not file.exists():
        raise ModelNotFound(
            f"{row.name} needs the network of {record_file(options.out, base.name, seed)}; make it "
            f"with '{_command(base, seed, options)} --out {options.out}'"
        )
    set_weights(model, from_npz(file.read_bytes()))
    mean_logits = over_symmetries(CentralTrainer(model).logits)
    held = cases.validation.images
    return mean_logits(cases.test.images), mean_logits(held) if len(held) else None


def _use_bfloat16(wanted: bool) -> None:
    """Whether TensorFlow's graphs compute in bfloat16 where oneDNN can; weights stay float32."""
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": wanted})


def _weights_file(options: Options, row: Row, seed: int) -> Path:
    return options.out / f"{stem_of(row.name, seed)}.npz"


def _partial_file(options: Options, row: Row, seed: int) -> Path:
    return options.out / f"{stem_of(row.name, seed)}.partial.npz"


def _name_of(config: QanaConfig) -> str:
    """What ``--network`` calls a network's widths."""
    return "small" if config.widths == DEMO_CONFIG.widths else "default"


def _network_options(config: QanaConfig) -> str:
    """The options that give a network, in front of them a blank; empty for the default one."""
    usual = DEMO_CONFIG if _name_of(config) == "small" else QanaConfig()
    text = " --network small" if usual == DEMO_CONFIG else ""
    if config.elements != usual.elements:
        text += f" --elements {','.join(config.elements) or 'none'}"
    return text


def _command(row: Row, seed: int, options: Options) -> str:
    """What makes the record again, but for where the data and the records are."""
    usual, mine = Schedule(), options.schedule
    name = f"{row.name.removesuffix(f'-{row.site}')} --site {row.site}" if row.site else row.name
    text = f"fedqana bench accuracy run {name} --data {data_name(options.data)} --seed {seed}"
    text += f" --epochs {mine.epochs}"
    for option in ("batch", "learning_rate", "freeze_batch_norm"):
        if getattr(mine, option) != getattr(usual, option):
            text += f" --{option.replace('_', '-')} {getattr(mine, option):g}"
    text += _network_options(options.network)
    if options.classes != HAM10000_CLASSES:
        text += f" --classes {','.join(options.classes.codes)}"
    if options.initial != RANDOM:
        known = options.initial == PRETRAINED
        text += f" --initial {options.initial if known else Path(options.initial).name}"
    if options.saliency_weights:
        text += f" --saliency-weights {Path(options.saliency_weights).name}"
    return text + (" --bfloat16" if options.bfloat16 else "")
