"""Normalisers that are brought along: scikit-learn's objects, kept as plain arrays.

A QuantileTransformer becomes a `QuantileNormalizer`, a StandardScaler or RobustScaler an
`AffineNormalizer`; all of them give the same numbers as the object.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradax.data.normalize import (
    VERSION,
    QuantileNormalizer,
    feature_names,
    named_array,
    read_normalizer,
)
from tradax.errors import ConfigError, DataError
from tradax.files import write_atomic

_FORMAT = "tradax-scaler"
_CENTERS = {"StandardScaler": "mean_", "RobustScaler": "center_"}


@dataclass(frozen=True)
class AffineNormalizer:
    """(x - center) / scale for each feature, as StandardScaler and RobustScaler do it."""

    center: np.ndarray
    """[F] float64"""
    scale: np.ndarray
    """[F] float64, positive."""
    names: tuple[str, ...]
    """Of the F features."""
    kind: str = "StandardScaler"
    """The class of scikit-learn that it stands for."""

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Args: values [N, F]; NaN stays NaN."""
        return (np.asarray(values, np.float64) - self.center) / self.scale

    def save(self, path: Path | str) -> None:
        """As safetensors, with names and kind in its metadata."""
        from safetensors.numpy import save

        metadata = {"format": _FORMAT, "version": str(VERSION), "kind": self.kind}
        metadata["names"] = json.dumps(self.names)
        write_atomic(path, save({"center": self.center, "scale": self.scale}, metadata))

    def write_joblib(self, path: Path | str) -> None:
        """A fitted object for scikit-learn; we never read it ourselves."""
        import joblib
        from sklearn import preprocessing

        scaler: Any = getattr(preprocessing, self.kind)()
        setattr(scaler, _CENTERS[self.kind], self.center)
        scaler.scale_ = self.scale
        scaler.n_features_in_ = len(self.names)
        buffer = io.BytesIO()
        joblib.dump(scaler, buffer)
        write_atomic(path, buffer.getvalue())


Normalizer = QuantileNormalizer | AffineNormalizer


def load_normalizer(path: Path | str) -> Normalizer:
    """What `save` of either kind wrote. Executes no code.

    Raises:
        DataError: the file is foreign, damaged or of a newer version.
    """
    found = read_normalizer(path)
    if found.metadata.get("format") != _FORMAT:
        return QuantileNormalizer.from_file(found, path)
    names, kind = feature_names(found.metadata, path), found.metadata.get("kind")
    center, scale = (named_array(found, name, path) for name in ("center", "scale"))
    fits = center.dtype == scale.dtype == np.float64 and center.shape == scale.shape == (
        len(names),
    )
    if not (fits and np.isfinite([center, scale]).all() and (scale > 0).all() and kind in _CENTERS):
        raise DataError(f"{path}: not a normaliser of {len(names)} features; the file is damaged")
    return AffineNormalizer(center, scale, names, str(kind))


def from_sklearn(given: Any, values: np.ndarray, names: tuple[str, ...]) -> Normalizer:
    """A scikit-learn object as a normaliser; one that is not fitted yet is fitted, as a copy.

    Args:
        given: QuantileTransformer, StandardScaler or RobustScaler.
        values: training rows [N, F], finite.
        names: of the F features.

    Raises:
        ConfigError: another object, or one that was fitted on other features.
    """
    from sklearn.base import clone
    from sklearn.utils.validation import check_is_fitted

    kind = type(given).__name__
    if kind != "QuantileTransformer" and kind not in _CENTERS:
        raise ConfigError(
            f"normalizer is a {kind}; give scikit-learn's QuantileTransformer, StandardScaler or "
            "RobustScaler"
        )
    try:
        check_is_fitted(given)
    except ValueError:  # scikit-learn's NotFittedError
        given = clone(given)
        if kind == "QuantileTransformer" and given.random_state is None:
            given.set_params(random_state=0)  # it draws rows, and equal seeds give equal runs
        given.fit(values)
    if given.n_features_in_ != len(names):
        raise ConfigError(
            f"normalizer was fitted on {given.n_features_in_} features and these data have "
            f"{len(names)}: {', '.join(names)}"
        )
    fitted_names = getattr(given, "feature_names_in_", None)
    if fitted_names is not None and tuple(fitted_names) != names:
        raise ConfigError(
            f"normalizer was fitted on {', '.join(fitted_names)}, in this order; these data have "
            f"{', '.join(names)}"
        )
    if kind == "QuantileTransformer":
        return QuantileNormalizer(
            np.asarray(given.quantiles_, np.float64),
            np.asarray(given.references_, np.float64),
            names,
            given.output_distribution,
        )
    center = getattr(given, _CENTERS[kind]) if _centers(given) else None
    scale = given.scale_
    return AffineNormalizer(
        np.zeros(len(names)) if center is None else np.array(center, np.float64),
        np.ones(len(names)) if scale is None else np.array(scale, np.float64),
        names,
        kind,
    )


def _centers(scaler: Any) -> bool:
    return bool(getattr(scaler, "with_mean", getattr(scaler, "with_centering", True)))
