"""A tiny network and toy images with which the Akida runtime is tested."""

import functools
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.akida_runtime import Program
from common.files import sha256_of

SIZE = 32


def toy_cases(
    n_per_class: int, seed: int, classes: int = 4
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise images (n, 32, 32, 3) of which class k < 3 lacks colour k, class 3 all but one."""
    random = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), n_per_class)
    images = random.integers(0, 256, (len(labels), SIZE, SIZE, 3)).astype(np.float64)
    dimmed = {0: [0], 1: [1], 2: [2], 3: [0, 1]}
    for image, label in zip(images, labels, strict=True):
        image[..., dimmed[int(label)]] *= random.uniform(0.3, 0.8)
    return images.clip(0, 255).astype(np.uint8), labels


@functools.cache
def tiny_program() -> Program:
    """The tiny network trained on three of the four toy classes and converted.

    Kept in the temporary folder: making it takes 15 seconds.
    """
    folder = Path(tempfile.gettempdir()) / f"fedqana-tests-{os.getuid()}"
    made_by = Path(__file__).read_text() + "".join(map(version, ("akida", "cnn2snn", "quantizeml")))
    path = folder / f"tiny-{sha256_of(made_by.encode())[:16]}.fbz"
    if not path.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(Program(_converted()).to_bytes())
        partial.rename(path)
    return Program.from_file(path)


def _converted() -> Any:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras as keras
    from cnn2snn import AkidaVersion, convert, set_akida_version
    from quantizeml.models import QuantizationParams, dump_config, quantize

    keras.utils.set_random_seed(1)
    images, labels = toy_cases(60, seed=0, classes=3)
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((SIZE, SIZE, 3), dtype="uint8"),
            layers.Rescaling(1 / 255.0),
            layers.Conv2D(16, 3, strides=2, padding="same", name="stem"),
            layers.ReLU(max_value=6),
            layers.Conv2D(32, 3, padding="same", name="conv"),
            layers.ReLU(max_value=6),
            layers.Conv2D(32, 3, padding="same", name="pooled"),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.ReLU(max_value=6),
            layers.Conv2D(64, 3, padding="same", name="spikes"),
            layers.ReLU(max_value=1, name="spikes_relu"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(images, labels, epochs=8, verbose=0)
    settings = QuantizationParams(
        input_dtype="uint8",
        input_weight_bits=8,
        weight_bits=4,
        activation_bits=4,
        per_tensor_activations=True,
    )
    with set_akida_version(AkidaVersion.v1):
        quantized = quantize(network, qparams=settings, samples=images, num_samples=100)
        config = dump_config(quantized)
        config["spikes_relu"]["output_quantizer"]["bitwidth"] = 1
        quantized = quantize(
            network, q_config=config, qparams=settings, samples=images, num_samples=100
        )
        return convert(quantized)


def with_dense_layers(program: Program, units: int, n_layers: int) -> Program:
    """``program`` with dense layers in place of its head, which want scarce FNP2 nodes."""
    import akida

    model = akida.Model(layers=program.model.layers)
    model.pop_layer()
    for index in range(n_layers):
        model.add(akida.FullyConnected(units, f"dense{index}", weights_bits=4, act_bits=4))
    return Program(model)
