"""What `fedqana client check` looks at: one line each, `ok` or what is wrong and what to do.

findings    what a check found, and how it is put
running     all checks, side by side, each with its own limit of time
folder      settings, policy, permissions, key
network     the way to the coordinator's server, clock, versions, membership
site        cases, classes, a folder of images, audit log, state
machine     disk, memory, processors
programs    the local service, Flower's node, the Akida device
"""

from edge_client.checks.findings import Finding
from edge_client.checks.running import run_checks

__all__ = ["Finding", "run_checks"]
