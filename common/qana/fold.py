"""From the training graph to the chain: exact structural re-parameterization.

With batch norm BN(z) = a z + c per output channel (a = gamma / sqrt(var + eps),
c = beta - a mean) every block folds into two convolutions:

- features and squeeze, one 3x3 convolution with C + C/q outputs. The Ghost half P has
  K[1,1,i,o] = a_o P[i,o]; the cheap half K[h,w,i,o] = a_o P[i,o] D[h,w,o]; the residual adds
  its 1x1 kernel (or the identity) to the centre tap; the squeeze channels bring their own
  3x3 kernel. Bias: the sum of the c's.
- the gate, a 1x1 convolution with kernel [I; a E] and bias c.

The transformation stage folds its batch norm; squeeze-and-excitation becomes [I | Q] and the
spike generator [S; X]. Pixels enter as 0..255: the factor 1/255 goes into the stem's kernel.

What a network lacks (`QanaConfig.elements`) brings nothing: no residual, no squeeze channels and
gate, no excitation.
"""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from common.qana.chain import Chain, ChainLayer
from common.qana.config import Element, QanaConfig
from common.qana.network import BATCH_NORM_EPSILON, BOUND, BlockPlan, block_plans

Array = NDArray[np.float64]
Weights = Mapping[str, NDArray[np.float32]]


class _Reader:
    """Named access to a network's weights in float64."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def get(self, name: str) -> Array:
        return np.asarray(self._weights[name], np.float64)

    def batch_norm(self, name: str) -> tuple[Array, Array]:
        """Slope and offset per channel."""
        slope = self.get(f"{name}/gamma") / np.sqrt(
            self.get(f"{name}/moving_variance") + BATCH_NORM_EPSILON
        )
        return slope, self.get(f"{name}/beta") - slope * self.get(f"{name}/moving_mean")


def _layer(
    name: str,
    kernel: Array,
    bias: Array,
    *,
    stride: int = 1,
    pooled: bool = False,
    bound: float | None = BOUND,
) -> ChainLayer:
    return ChainLayer(
        name, kernel.astype(np.float32), bias.astype(np.float32), stride, pooled, bound
    )


def _fold_residual(read: _Reader, plan: BlockPlan) -> tuple[Array, Array]:
    """Kernel of the centre tap and offset: the projection's, or the identity."""
    if not plan.projected:
        return np.eye(plan.width), np.zeros(plan.width)
    slope, offset = read.batch_norm(f"{plan.name}_skip_bn")
    return read.get(f"{plan.name}_skip/kernel")[0, 0] * slope, offset


def _fold_features(read: _Reader, plan: BlockPlan, elements: Collection[Element]) -> ChainLayer:
    """Ghost, residual and squeeze of one block as one 3x3 convolution."""
    primary = read.get(f"{plan.name}_primary/kernel")[0, 0]
    depthwise = read.get(f"{plan.name}_cheap/depthwise_kernel")[:, :, :, 0]
    half = plan.width // 2
    kernel = np.zeros((3, 3, plan.inputs, plan.width))
    kernel[1, 1, :, :half] = primary
    kernel[:, :, :, half:] = depthwise[:, :, None, :] * primary[None, None, :, :]
    slope, offset = read.batch_norm(f"{plan.name}_ghost_bn")
    kernel *= slope
    if "residual" in elements:
        skip, skip_offset = _fold_residual(read, plan)
        kernel[1, 1] += skip
        offset = offset + skip_offset
    if "attention" in elements:
        squeeze_slope, squeeze_offset = read.batch_norm(f"{plan.name}_squeeze_bn")
        squeeze = read.get(f"{plan.name}_squeeze/kernel") * squeeze_slope
        kernel = np.concatenate([kernel, squeeze], axis=-1)
        offset = np.concatenate([offset, squeeze_offset])
    return _layer(f"{plan.name}_features", kernel, offset, stride=plan.stride)


def _fold_gate(read: _Reader, plan: BlockPlan) -> ChainLayer:
    """The attention's gate as a 1x1 convolution over features and squeeze channels."""
    slope, offset = read.batch_norm(f"{plan.name}_spread_bn")
    spread = read.get(f"{plan.name}_spread/kernel")[0, 0] * slope
    kernel = np.concatenate([np.eye(plan.width), spread], axis=0)
    return _layer(f"{plan.name}_gate", kernel[None, None], offset)


def _fold_excitation(read: _Reader, config: QanaConfig) -> ChainLayer:
    """The pooled features and their excitation as one 1x1 convolution."""
    slope, offset = read.batch_norm("excite_squeeze_bn")
    excite = read.get("excite_squeeze/kernel")[0, 0] * slope
    kernel = np.concatenate([np.eye(config.transform), excite], axis=1)
    bias = np.concatenate([np.zeros(config.transform), offset])
    return _layer("excite", kernel[None, None], bias)


def fold(weights: Weights, config: QanaConfig) -> Chain:
    """Fold a training graph's weights into a chain that computes the same logits.

    Parameters
    ----------
    weights : mapping of str to float32 array
        By the names that `common.qana.weights.named_weights` gives, moving statistics included.
    """
    read = _Reader(weights)
    slope, offset = read.batch_norm("stem_bn")
    chain = [_layer("stem", read.get("stem/kernel") * slope / 255.0, offset, stride=2)]
    for plan in block_plans(config):
        chain.append(_fold_features(read, plan, config.elements))
        if "attention" in config.elements:
            chain.append(_fold_gate(read, plan))

    slope, offset = read.batch_norm("transform_bn")
    chain.append(_layer("transform", read.get("transform/kernel") * slope, offset, pooled=True))

    if "excitation" in config.elements:
        chain.append(_fold_excitation(read, config))
    slope, offset = read.batch_norm("spikes_bn")
    chain.append(
        _layer("spikes", 0.5 * read.get("spikes/kernel") * slope, 0.5 * offset + 0.5, bound=1.0)
    )
    head = read.get("head/kernel")
    chain.append(_layer("head", head[None, None], read.get("head/bias"), bound=None))
    return Chain(tuple(chain), config.input_size)
