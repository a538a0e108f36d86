"""Which of the finished trials becomes the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sarc_ray.errors import EvaluationError


class Candidate(Protocol):
    """The part of a result that the choice looks at; a :class:`CvResult`, or a record of one."""

    @property
    def cv_auroc_mean(self) -> float:
        """Mean of the fold AUROCs."""

    @property
    def cv_auroc_se(self) -> float:
        """Its standard error."""

    @property
    def oof_f1(self) -> float:
        """F1 at the out-of-fold Youden threshold."""


def choose(results: Sequence[Candidate]) -> int:
    """Index of the chosen result.

    The best mean AUROC sets the mark; among all within one standard error (of that best) below it, the best F1 at the
    out-of-fold Youden threshold wins; then the higher mean AUROC, then the earlier result. Only the results and their
    order count, so the choice is the same whatever computed them.

    Raises:
        EvaluationError: no results, or one whose mean AUROC is not finite.
    """
    if not results:
        raise EvaluationError("choice: there are no cross-validation results to choose from")
    means = np.asarray([result.cv_auroc_mean for result in results])
    if not np.isfinite(means).all():
        raise EvaluationError("choice: a result has no mean AUROC; every trial must be evaluated on all folds")
    best = int(np.argmax(means))
    candidates = np.flatnonzero(means >= means[best] - results[best].cv_auroc_se)
    return min(candidates.tolist(), key=lambda i: (-results[i].oof_f1, -means[i], i))
