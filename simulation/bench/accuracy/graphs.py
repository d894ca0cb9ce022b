"""The float networks of the benchmark: QANA, QANA without one of its elements, ResNet-18."""

from common.keras_setup import keras, tf
from common.qana.config import DEMO_CONFIG, QanaConfig
from common.qana.network import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    BOUND,
    BlockPlan,
    attention,
    block_plans,
    build_training_graph,
    excitation,
    ghost,
    residual,
    spike_generator,
    stem,
    transformation,
)
from simulation.bench.accuracy.resnet18 import SMALL_WIDTHS, WIDTHS, resnet18
from simulation.bench.accuracy.rows import Graph

layers = keras.layers


def build_graph(graph: Graph, config: QanaConfig, n_classes: int, seed: int) -> keras.Model:
    """uint8 images (n, size, size, 3) to logits (n, n_classes); weights depend on ``seed`` only.

    ResNet-18 has its own widths, small ones beside the small QANA.
    """
    if graph == "qana":
        return build_training_graph(config, n_classes, seed)
    if graph == "resnet18":
        widths = SMALL_WIDTHS if config == DEMO_CONFIG else WIDTHS
        return resnet18(config.input_size, n_classes, seed, widths)
    return _ablated(graph, config, n_classes, seed)


def _ablated(graph: Graph, config: QanaConfig, n_classes: int, seed: int) -> keras.Model:
    """`build_training_graph` without one element; what is left has the same names and order."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((config.input_size, config.input_size, 3), dtype="uint8", name="image")
    x = stem(pixels, config.stem)
    for plan in block_plans(config):
        x = _block(x, plan, config.squeeze, graph)
    x = transformation(x, config)
    if graph != "no-se":
        x = excitation(x, config)
    x = layers.Flatten(name="flatten")(spike_generator(x, config))
    logits = layers.Dense(n_classes, name="head")(x)
    return keras.Model(pixels, logits, name=graph)


def _block(x: tf.Tensor, plan: BlockPlan, squeeze: int, graph: Graph) -> tf.Tensor:
    features = _plain(x, plan) if graph == "plain-convolutions" else ghost(x, plan)
    if graph != "no-residual":
        features = layers.Add(name=f"{plan.name}_sum")([features, residual(x, plan)])
    features = layers.ReLU(max_value=BOUND, name=f"{plan.name}_f_relu")(features)
    return features if graph == "no-attention" else attention(x, features, plan, squeeze)


def _plain(x: tf.Tensor, plan: BlockPlan) -> tf.Tensor:
    """A 3x3 convolution and batch norm in place of Ghost features."""
    x = layers.Conv2D(
        plan.width, 3, plan.stride, padding="same", use_bias=False, name=f"{plan.name}_plain"
    )(x)
    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=f"{plan.name}_plain_bn"
    )(x)
