"""The hospital: local training, the Akida device, on-chip learning and the exemplar store."""
