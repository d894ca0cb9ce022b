"""The float networks of the benchmark: QANA, QANA with plain convolutions, ResNet-18."""

from common.keras_setup import keras, tf
from common.qana.config import DEMO_CONFIG, QanaConfig
from common.qana.network import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    BlockPlan,
    build_training_graph,
)
from simulation.bench.accuracy.resnet18 import SMALL_WIDTHS, WIDTHS, resnet18
from simulation.bench.accuracy.rows import Graph

layers = keras.layers


def build_graph(graph: Graph, config: QanaConfig, n_classes: int, seed: int) -> keras.Model:
    """uint8 images (n, size, size, 3) to logits (n, n_classes); weights depend on ``seed`` only.

    ResNet-18 has its own widths, small ones beside the small QANA.
    """
    if graph == "resnet18":
        widths = SMALL_WIDTHS if config.widths == DEMO_CONFIG.widths else WIDTHS
        return resnet18(config.input_size, n_classes, seed, widths)
    if graph == "plain-convolutions":
        return build_training_graph(config, n_classes, seed, features=_plain)
    return build_training_graph(config, n_classes, seed)


def _plain(x: tf.Tensor, plan: BlockPlan) -> tf.Tensor:
    """A 3x3 convolution and batch norm in place of Ghost features."""
    x = layers.Conv2D(
        plan.width, 3, plan.stride, padding="same", use_bias=False, name=f"{plan.name}_plain"
    )(x)
    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=f"{plan.name}_plain_bn"
    )(x)
