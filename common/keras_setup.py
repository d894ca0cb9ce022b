"""TensorFlow with Keras 2, as the Akida tools need it: imported from here and nowhere else.

The environment must be set before TensorFlow's first import: `TF_USE_LEGACY_KERAS` because
quantizeml and cnn2snn speak Keras 2 (`tf_keras`); `ASSERT_ENABLED=0` leaves out quantizeml's
own assertions, which slow a training step down; no GPU, so that the same seed gives the same
bits on any machine of one kind.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("ASSERT_ENABLED", "0")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ writes to standard error; it is shown only where the import fails.

    While it loads, TensorFlow reports CUDA plug-ins registered twice, before its logging reads
    any log level: an environment variable cannot silence that.
    """
    try:
        terminal = os.dup(2)
    except OSError:  # closed, as some daemons have it: nothing can be shown
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


with _quiet_stderr():
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
