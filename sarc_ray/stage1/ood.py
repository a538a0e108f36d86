"""Out of distribution: how far a picture lies from the training pictures, in the features that stage 1 computes anyway.

Mahalanobis distance on the leading principal axes of pooled features, after Lee et al. 2018, with Ledoit and Wolf's
shrinkage of the covariance. Which features: those of one network, the first member of the first target. One is enough
(three networks of three targets saw the same pictures as strange), a whole ensemble would need a reference per member;
with frozen convolutions all members share the features. How it was chosen: docs/explanation/out-of-distribution.md.

Shapes: N pictures, F pooled features, K axes.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from sarc_ray.errors import BundleError

FloatArray = npt.NDArray[np.float64]

# Axes beyond these hold a per cent or two of the variance of the compact network's features.
MAX_AXES = 64
# A false-alarm rate above the one asked for is accepted up to here, for want of tuning pictures.
MAX_UNASKED_RATE = 0.05
_ENTRY = "backbone_hash"
_TENSORS = ("mean_F", "sd_F", "axes_KF", "variance_K")
_MIN_SD = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class OodReference:
    """Where the training pictures lie.

    Args:
        mean_F: of each feature.
        sd_F: what each feature is divided by: its standard deviation, or the median one where that is larger.
        axes_KF: principal axes of the standardised features, unit length.
        variance_K: along them, shrunk.
        backbone_hash: of the convolutions whose features these are.
    """

    mean_F: npt.NDArray[np.float32]
    sd_F: npt.NDArray[np.float32]
    axes_KF: npt.NDArray[np.float32]
    variance_K: npt.NDArray[np.float32]
    backbone_hash: str

    def distance(self, features_NF: npt.ArrayLike) -> FloatArray:
        """Root mean squared deviation along the axes, each in units of its own spread; about 1 is ordinary.

        Rows are taken one by one, so that a row's distance is the same, bit for bit, wherever it stands in a batch.

        Args:
            features_NF: pooled features of the same convolutions.

        Returns:
            Shape (N,), dimensionless.
        """
        features_NF = np.asarray(features_NF, dtype=np.float64)
        mean_F, sd_F = self.mean_F.astype(np.float64), self.sd_F.astype(np.float64)
        scaled_KF = self.axes_KF / np.sqrt(self.variance_K.astype(np.float64))[:, None]
        return np.array(
            [math.sqrt(np.square((scaled_KF * ((row_F - mean_F) / sd_F)).sum(axis=1)).mean()) for row_F in features_NF]
        )

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything that a distance depends on."""
        digest = hashlib.sha256(self.backbone_hash.encode("ascii"))
        for name in _TENSORS:
            values = getattr(self, name)
            digest.update(f"{name} {values.shape}".encode("ascii"))
            digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
        return digest.hexdigest()


def fit_reference(features_NF: npt.ArrayLike, *, backbone_hash: str) -> OodReference:
    """Learn where the training pictures lie.

    Args:
        features_NF: pooled features of the training pictures, none of them varied.
        backbone_hash: of the convolutions that made them.

    Raises:
        ValueError: fewer than three pictures, or pictures without any difference.

    References:
        Lee K, Lee K, Lee H, Shin J. A simple unified framework for detecting out-of-distribution samples and
        adversarial attacks. NeurIPS 2018. Ledoit O, Wolf M. A well-conditioned estimator for large-dimensional
        covariance matrices. J Multivar Anal 2004;88:365-411.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # a second's import, only where a reference is fitted
    from sklearn.decomposition import PCA

    features_NF = np.asarray(features_NF, dtype=np.float64)
    n = len(features_NF)
    if n < 3:
        raise ValueError(f"features: of {n} training pictures; three or more are needed to say what is ordinary")
    mean_F, sd_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    if sd_F.max() <= _MIN_SD:
        raise ValueError(f"features: {n} training pictures are all the same to the network; is it trained?")
    # A feature that is nearly dead in training has a tiny SD by chance, and one ordinary picture that wakes it would
    # lie hundreds of units away.
    sd_F = np.maximum(sd_F, np.median(sd_F[sd_F > _MIN_SD]))
    z_NF = (features_NF - mean_F) / sd_F
    # Centred rows span at most n - 1 axes. The seed matters only to the randomised solver of very wide features.
    pca = PCA(n_components=min(MAX_AXES, n - 1, z_NF.shape[1]), random_state=0).fit(z_NF)
    kept = pca.explained_variance_ > 1e-9 * pca.explained_variance_[0]
    axes_KF, variance_K = pca.components_[kept], pca.explained_variance_[kept]
    shrinkage = ledoit_wolf_shrinkage(z_NF @ axes_KF.T, assume_centered=True)
    # On principal axes the covariance is diagonal, and shrinking it towards a multiple of one leaves it so.
    variance_K = (1.0 - shrinkage) * variance_K + shrinkage * variance_K.mean()
    return OodReference(
        mean_F=mean_F.astype(np.float32),
        sd_F=sd_F.astype(np.float32),
        axes_KF=np.ascontiguousarray(axes_KF, dtype=np.float32),
        variance_K=variance_K.astype(np.float32),
        backbone_hash=backbone_hash,
    )


def false_alarm_rate_held(n: int, false_alarm_rate: float | None) -> float | None:
    """The false-alarm rate that a threshold from so many pictures can promise; None where no threshold is set.

    The rate asked for takes 1 / rate - 1 pictures (99 for 1%). Below that the largest distance holds 1 / (n + 1), which
    is accepted up to 5%: to refuse 2 ordinary pictures in 100 instead of 1 is a smaller harm than to score every hand.
    With fewer pictures yet, so many ordinary ones would be refused that no threshold is set.

    Args:
        n: number of the tune split's pictures.
        false_alarm_rate: as in ``OodConfig``.

    Example:
        >>> [false_alarm_rate_held(n, 0.01) for n in (500, 99, 49, 11)]
        [0.01, 0.01, 0.02, None]
    """
    if not false_alarm_rate:
        return None
    held = max(false_alarm_rate, 1.0 / (n + 1))
    return held if held <= max(false_alarm_rate, MAX_UNASKED_RATE) else None


def alarm_threshold(distance_N: npt.ArrayLike, false_alarm_rate: float | None) -> float | None:
    """The distance above which a picture is refused, from pictures that the reference was not fitted on.

    The ceil((N + 1)(1 - rate))-th smallest distance, with the rate of :func:`false_alarm_rate_held`: then a new picture
    of the same kind is refused with probability of at most that rate (split conformal prediction).

    Args:
        distance_N: of the tune split's pictures.
        false_alarm_rate: as in ``OodConfig``.

    Returns:
        None where nothing is to be refused, or where there are too few pictures to say beyond what.

    References:
        Vovk V, Gammerman A, Shafer G. Algorithmic learning in a random world. Springer 2005.

    Example:
        >>> alarm_threshold([1.0, 1.2, 0.9, 1.1], 0.4)
        1.1
    """
    distance_N = np.sort(np.asarray(distance_N, dtype=np.float64))
    held = false_alarm_rate_held(distance_N.size, false_alarm_rate)
    if held is None:
        return None
    # Rounded first, or 100 x 0.99 would be a little above 99 and take the next distance.
    rank = math.ceil(round((distance_N.size + 1) * (1.0 - held), 9))
    return float(distance_N[max(rank, 1) - 1])


def reference_to_bytes(reference: OodReference) -> bytes:
    """Write a reference as a safetensors file (0.7 MB for 2,560 features)."""
    tensors = {name: np.ascontiguousarray(getattr(reference, name)) for name in _TENSORS}
    return safetensors.numpy.save(tensors, metadata={_ENTRY: reference.backbone_hash})


def reference_from_bytes(data: bytes) -> OodReference:
    """Read a reference back; no code is run from it.

    Raises:
        BundleError: no such file, or its tensors do not fit together.
    """
    try:
        tensors = safetensors.numpy.load(data)
        backbone_hash = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][_ENTRY]
        mean_F, sd_F, axes_KF, variance_K = (tensors[name] for name in _TENSORS)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"reference of training pictures: damaged or altered ({error!r})") from error
    fits = axes_KF.ndim == 2 and mean_F.shape == sd_F.shape == axes_KF.shape[1:]
    fits = fits and variance_K.shape == axes_KF.shape[:1] and axes_KF.size > 0
    if not fits or not (sd_F > 0).all() or not (variance_K > 0).all():
        raise BundleError("reference of training pictures: its tensors do not fit together; write the bundle again")
    return OodReference(
        mean_F=mean_F, sd_F=sd_F, axes_KF=axes_KF, variance_K=variance_K, backbone_hash=str(backbone_hash)
    )
