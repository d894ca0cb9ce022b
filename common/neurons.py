"""Neurons of a learning layer: as arrays, and bit-packed as they travel between sites.

A neuron is which of the spikes it is connected to, one bit each, and a threshold: 32 bytes and one
number for 256 spikes, and nothing of an image. It means something only with the program whose
spikes it was learned on, so a set of neurons names that program by its hash.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

MOST_NEURONS = 256
"""No set has more neurons."""


def connections_of(n_spikes: int) -> int:
    """Connections of each neuron: 3/8 of the inputs; BrainChip advises at most half of them."""
    return max(1, 3 * n_spikes // 8)


@dataclass(frozen=True)
class Neurons:
    """Neurons of a learning layer.

    Parameters
    ----------
    weights : uint8 array, shape (spikes, k)
        Connections, 0 or 1; equally many for each neuron.
    thresholds : int32 array, shape (k,)
        Subtracted from the number of connections that spike.
    """

    weights: NDArray[np.uint8]
    thresholds: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.thresholds)

    def chosen(self, indices: Sequence[int]) -> "Neurons":
        """The neurons at ``indices``, in that order."""
        return Neurons(self.weights[:, list(indices)], self.thresholds[list(indices)])

    def raised(self, by: NDArray[np.int32]) -> "Neurons":
        """The same neurons with thresholds that are higher by so much."""
        return Neurons(self.weights, (self.thresholds + by).astype(np.int32))

    def answers(self, spikes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Potentials, int64 (n, k), for spikes uint8 (n, spikes)."""
        return np.asarray(spikes.astype(np.int64) @ self.weights - self.thresholds, np.int64)

    @staticmethod
    def joined(parts: "Sequence[Neurons]") -> "Neurons":
        """All neurons of ``parts``, at least one, in order."""
        return Neurons(
            np.concatenate([part.weights for part in parts], axis=1),
            np.concatenate([part.thresholds for part in parts]),
        )


class SharedNeuron(BaseModel):
    """A neuron on its way: its class, its connections as base64 of packed bits, its threshold.

    ``cases`` is the number of exemplars that it was made from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    connections: str = Field(max_length=4096)
    threshold: int = Field(ge=-(2**15), le=2**15)
    cases: int = Field(ge=1, le=10**6)


class NeuronSet(BaseModel):
    """Neurons that were learned on the spikes of one program.

    Parameters
    ----------
    program : str
        SHA-256 of the program's file, hexadecimal.
    spikes : int
        Inputs of each neuron.
    num_weights : int
        Connections of each neuron.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str = Field(pattern=r"^[0-9a-f]{64}$")
    spikes: int = Field(ge=1, le=4096)
    num_weights: int = Field(ge=1, le=4096)
    neurons: tuple[SharedNeuron, ...] = Field(max_length=MOST_NEURONS)

    @property
    def codes(self) -> tuple[str, ...]:
        """The classes of its neurons, sorted."""
        return tuple(sorted({neuron.code for neuron in self.neurons}))

    def payload_bytes(self) -> int:
        """What the neurons take, packed, thresholds included (4 bytes each)."""
        return len(self.neurons) * (-(-self.spikes // 8) + 4)


def packed(connections: NDArray[np.uint8]) -> str:
    """Connections of one neuron, uint8 (spikes,), as base64 of their bits."""
    return base64.b64encode(np.packbits(connections).tobytes()).decode()


def unpacked(text: str, spikes: int) -> NDArray[np.uint8]:
    """The connections, uint8 (spikes,), that `packed` made; ValueError for any other text."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("connections are not base64") from error
    if len(content) != -(-spikes // 8):
        raise ValueError(f"connections of other than {spikes} spikes")
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    if bits[spikes:].any():
        raise ValueError("connections to spikes that do not exist")
    return bits[:spikes]


def to_set(
    neurons: Mapping[str, Neurons], cases: Mapping[str, int], program: str, num_weights: int
) -> NeuronSet | None:
    """Neurons by class code as a set, codes sorted; None where there are none."""
    spikes = {part.weights.shape[0] for part in neurons.values()}
    if not spikes:
        return None
    return NeuronSet(
        program=program,
        spikes=spikes.pop(),
        num_weights=num_weights,
        neurons=tuple(
            SharedNeuron(
                code=code,
                connections=packed(part.weights[:, index]),
                threshold=int(part.thresholds[index]),
                cases=cases[code],
            )
            for code, part in sorted(neurons.items())
            for index in range(len(part))
        ),
    )


def from_set(shared: NeuronSet) -> dict[str, Neurons]:
    """A set's neurons by class code; ValueError for connections that are none."""
    parts: dict[str, list[Neurons]] = {}
    for neuron in shared.neurons:
        weights = unpacked(neuron.connections, shared.spikes)
        if int(weights.sum()) != shared.num_weights:
            raise ValueError(f"a neuron has not {shared.num_weights} connections")
        thresholds = np.array([neuron.threshold], np.int32)
        parts.setdefault(neuron.code, []).append(Neurons(weights[:, None], thresholds))
    return {code: Neurons.joined(found) for code, found in parts.items()}
