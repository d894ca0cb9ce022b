"""TensorFlow with Keras 2, as the Akida tools need it: imported from here and nowhere else.

The environment must be set before TensorFlow's first import: `TF_USE_LEGACY_KERAS` because
quantizeml and cnn2snn speak Keras 2 (`tf_keras`); `ASSERT_ENABLED=0` leaves out quantizeml's
own assertions, which slow a training step down; no GPU, so that the same seed gives the same
bits on any machine of one kind.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("ASSERT_ENABLED", "0")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import tensorflow as tf
import tf_keras as keras

tf.config.experimental.enable_op_determinism()

__all__ = ["eagerly", "keras", "tf"]


@contextmanager
def eagerly() -> Iterator[None]:
    """Run without tracing: cnn2snn runs a model once, and tracing would be 9/10 of that."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
