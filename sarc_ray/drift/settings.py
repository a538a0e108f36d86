"""Configuration of the watch for drift; imports nothing heavy, so that the command line stays quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """When a distribution counts as moved: by enough to matter, and by more than chance moves it.

    Attributes:
        psi_watch: population stability index from which a variable is shown as ``watch`` (Siddiqi 2006: 0.1).
        psi_drift: from which it counts as ``drifted`` (Siddiqi 2006: 0.25).
        ks_watch: Kolmogorov-Smirnov distance from which a numeric variable is shown as ``watch``; 0.125 is that of two
            normal distributions whose index is 0.1.
        ks_drift: from which it counts as ``drifted``; 0.2 is that of two normal distributions whose index is 0.25.
        false_alarm_rate: largest chance of any alarm in a whole comparison where nothing has moved (Holm over all
            p-values).
        min_patients: groups with fewer patients are not judged; below 200 the index passes 0.1 by chance too often.
        grid_cells: cells of the grid on which numeric variables are kept; the distance is known to the share of one
            cell.
    """

    psi_watch: float
    psi_drift: float
    ks_watch: float
    ks_drift: float
    false_alarm_rate: float
    min_patients: int
    grid_cells: int

    def __post_init__(self) -> None:
        for low, high in (("psi_watch", "psi_drift"), ("ks_watch", "ks_drift")):
            if not 0 < getattr(self, low) <= getattr(self, high):
                raise ValueError(
                    f"{low}, {high}: found {getattr(self, low)} and {getattr(self, high)}; allowed: above 0, and the "
                    "first not above the second"
                )
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate: found {self.false_alarm_rate}, allowed: between 0 and 1, say 0.01")
        if self.min_patients < 20:
            raise ValueError(f"min_patients: found {self.min_patients}, allowed: 20 or more; fewer tell nothing")
        if self.grid_cells < 20:
            raise ValueError(f"grid_cells: found {self.grid_cells}, allowed: 20 or more, say 200")
