"""The QANA network: training graph, fold, quantization and conversion to an Akida program."""
