"""What both sides share: lesions, QANA, Akida conversion, messages, metrics and errors."""

__version__ = "0.1.0"
