"""A folded network as plain numbers: a chain of convolutions, each with a bias and a bound."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass(frozen=True)
class ChainLayer:
    """One layer of a folded chain.

    Parameters
    ----------
    name : str
    kernel : float32 array, shape (height, width, inputs, outputs)
    bias : float32 array, shape (outputs,)
    stride : int
    pooled : bool
        Whether global average pooling follows, before the bound.
    bound : float or None
        Upper bound of the ReLU; None for the last layer, whose outputs are logits.
    """

    name: str
    kernel: Float
    bias: Float
    stride: int = 1
    pooled: bool = False
    bound: float | None = None


@dataclass(frozen=True)
class Chain:
    """A folded network: ``layers`` in order; the last one is the head."""

    layers: tuple[ChainLayer, ...]
    input_size: int

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return int(self.layers[-1].bias.shape[0])

    def weights(self) -> dict[str, Float]:
        """All kernels and biases by name (``stem/kernel``, ``stem/bias``, ...), in order."""
        named: dict[str, Float] = {}
        for layer in self.layers:
            named[f"{layer.name}/kernel"] = layer.kernel
            named[f"{layer.name}/bias"] = layer.bias
        return named

    def with_weights(self, weights: dict[str, Float]) -> "Chain":
        """The same chain with other kernels and biases; the head may have other outputs."""
        return Chain(
            tuple(
                replace(
                    layer,
                    kernel=np.asarray(weights[f"{layer.name}/kernel"], np.float32),
                    bias=np.asarray(weights[f"{layer.name}/bias"], np.float32),
                )
                for layer in self.layers
            ),
            self.input_size,
        )


def normalized(chain: Chain, ranges: NDArray[np.float64], target: float) -> Chain:
    """Rescale a chain so that each bounded activation of range ``ranges[i]`` fills ``target``.

    A bounded ReLU is positively homogeneous: scaling kernel and bias of a layer by k and the
    next kernel by 1/k changes nothing but the activation's unit. The bound then becomes the
    range itself, i.e. what exceeds the calibrated range saturates. The spike generator (bound
    1) and the head keep their scale.

    Parameters
    ----------
    ranges : float64 array, shape (n_layers,)
        Calibrated upper ends per layer, in the chain's own units, > 0; the entries of the
        spike generator and the head are not used.
    target : float
        The range that every activation gets.
    """
    result = []
    incoming = 1.0
    for layer, upper in zip(chain.layers, ranges, strict=True):
        scale = target / float(upper) if layer.bound is not None and layer.bound > 1.0 else 1.0
        result.append(
            replace(
                layer,
                kernel=(layer.kernel * np.float32(scale / incoming)).astype(np.float32),
                bias=(layer.bias * np.float32(scale)).astype(np.float32),
                bound=target if scale != 1.0 or layer.bound == target else layer.bound,
            )
        )
        incoming = scale
    return Chain(tuple(result), chain.input_size)
