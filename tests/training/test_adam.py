"""Adam on one vector against Keras's own, bit for bit."""

import numpy as np

from common.keras_setup import keras, tf
from edge_client.adam import FlatAdam

SHAPES = [(3, 3, 5, 7), (7,), (1,), (1, 1, 40, 32), (256, 7)]


def test_it_takes_the_steps_of_keras_in_every_round() -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
    ours, theirs = ([tf.Variable(value) for value in drawn] for _ in range(2))
    flat = FlatAdam(ours)
    compiled = tf.function(flat.apply)
    for learning_rate, proximal in ((1e-3, 0.0), (3e-2, 0.1)):
        flat.start(learning_rate)
        keras_adam = keras.optimizers.Adam(learning_rate)
        keras_adam.build(theirs)
        anchors = [v.numpy() for v in theirs]
        for _ in range(20):
            scale = 10.0 ** rng.integers(-6, 3)
            gradients = [tf.constant(rng.normal(size=s) * scale, tf.float32) for s in SHAPES]
            compiled(gradients, tf.constant(proximal))
            pulled = [
                g + proximal * (v - a) for g, v, a in zip(gradients, theirs, anchors, strict=True)
            ]
            keras_adam.apply_gradients(zip(pulled, theirs, strict=True))
        for one, other, before in zip(ours, theirs, anchors, strict=True):
            assert one.numpy().tobytes() == other.numpy().tobytes()
            assert not np.array_equal(one, before)
