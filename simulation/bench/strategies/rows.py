"""Rows of the benchmark of strategies, as plain values; nothing heavy is imported."""

from dataclasses import dataclass

BASELINE = "fedavg"
"""What the others are compared with."""

STRATEGIES = (BASELINE, "fedprox", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg", "krum")
"""Those of `server.plan.RunPlan`, in the order of tables."""

COMPRESSIONS = ("none", "quantization", "top-k")
"""Those of `common.compression`."""


@dataclass(frozen=True)
class Row:
    """One run: how lesions become sites (as `common.data.sites.assign_sites`), strategy, seed."""

    sites: str
    strategy: str
    seed: int

    @property
    def stem(self) -> str:
        """Name of the row's files, without their ends, and of its run."""
        return f"{self.sites.replace(':', '-')}-{self.strategy}-seed-{self.seed}"

    @property
    def shown(self) -> str:
        """For lines of progress."""
        return f"{self.sites} {self.strategy} seed {self.seed}"
