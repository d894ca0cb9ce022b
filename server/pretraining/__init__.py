"""Initial weights from nobody's data: QANA learns a frozen ImageNet network's features."""
