"""Map every feature to a standard normal by its quantiles on the training rows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradax.errors import DataError
from tradax.files import write_atomic
from tradax.reading import Tensors, check_version, json_value, read_bytes, tensors

VERSION = 1
"""Of a normaliser's file."""
LIMIT = 5.2
"""No normalised feature is further from 0."""
_FORMAT = "tradax-normalizer"
_MOST_BYTES = 2**28  # 1,000 quantiles of 30,000 features
_EDGE = 1e-7
"""Values nearer to the training range's ends than this are at its ends; also the clipped share."""


@dataclass(frozen=True)
class QuantileNormalizer:
    """scikit-learn's QuantileTransformer as plain arrays."""

    quantiles: np.ndarray
    """[Q, F] float64"""
    references: np.ndarray
    """[Q] float64, from 0 to 1."""
    names: tuple[str, ...]
    """Of the F features."""
    distribution: str = "normal"
    """Of what comes out: normal, or uniform in 0 to 1."""

    @classmethod
    def fit(
        cls, values: np.ndarray, names: tuple[str, ...], n_quantiles: int = 1000
    ) -> "QuantileNormalizer":
        """As scikit-learn does where it draws no rows, bit for bit; importing it costs a second.

        Args:
            values: training rows [N, F], finite.
        """
        references = np.linspace(0, 1, min(n_quantiles, len(values)))
        quantiles = np.nanpercentile(np.asarray(values, np.float64), references * 100, axis=0)
        return cls(quantiles, references, tuple(names))

    def transform(self, values: np.ndarray) -> np.ndarray:
        """As scikit-learn does, bit for bit; its own checks cost a live bar a millisecond.

        Args:
            values: [N, F]; beyond the training range they are clipped, normal ones at about +-5.2.
                NaN stays.
        """
        from scipy.special import ndtri

        edge = _EDGE if self.distribution == "normal" else 0.0
        values = np.asarray(values, np.float64)
        shares = np.empty_like(values)
        for column, (x, quantiles) in enumerate(zip(values.T, self.quantiles.T, strict=True)):
            # Both ways, so that a value that was seen many times is in the middle of its quantiles.
            up = np.interp(x, quantiles, self.references)
            down = np.interp(-x, -quantiles[::-1], -self.references[::-1])
            share = 0.5 * (up - down)
            share[x + edge > quantiles[-1]] = 1.0
            share[x - edge < quantiles[0]] = 0.0
            shares[:, column] = share
        if self.distribution == "uniform":
            return shares
        low, high = ndtri(_EDGE - np.spacing(1)), ndtri(1.0 - (_EDGE - np.spacing(1)))
        return np.clip(ndtri(shares), low, high)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` takes beside the names."""
        return {
            "quantiles": np.array(self.quantiles, np.float64, order="C"),
            "references": np.array(self.references, np.float64, order="C"),
        }

    @classmethod
    def from_arrays(
        cls,
        arrays: dict[str, np.ndarray],
        names: tuple[str, ...],
        source: str = "normaliser",
        distribution: str = "normal",
    ) -> "QuantileNormalizer":
        """Raises DataError where the arrays are not those of a normaliser of these features."""
        quantiles, references = arrays["quantiles"], arrays["references"]
        if not quantiles.dtype == references.dtype == np.float64:
            raise DataError(
                f"{source}: arrays of {quantiles.dtype} and {references.dtype}, not float64"
            )
        shapes = (quantiles.shape, references.shape)
        if quantiles.ndim != 2 or shapes != ((references.size, len(names)), (references.size,)):
            raise DataError(f"{source}: arrays of shapes {shapes} do not fit {len(names)} features")
        for values in (quantiles, references):
            finite = values.size > 0 and np.isfinite(values).all()
            if not (finite and (np.diff(values, axis=0) >= 0).all()):
                raise DataError(
                    f"{source}: quantiles are not finite and increasing; the file is damaged"
                )
        if distribution not in ("normal", "uniform"):
            raise DataError(
                f"{source}: distribution {distribution!r} is neither normal nor uniform"
            )
        return cls(quantiles, references, names, distribution)

    def save(self, path: Path | str) -> None:
        """As safetensors, with the names in its metadata."""
        from safetensors.numpy import save

        metadata = {"format": _FORMAT, "names": json.dumps(self.names)}
        metadata |= {"version": str(VERSION), "distribution": self.distribution}
        write_atomic(path, save(self.to_arrays(), metadata))

    @classmethod
    def load(cls, path: Path | str) -> "QuantileNormalizer":
        """Raises DataError where the file is foreign, damaged or of a newer version."""
        return cls.from_file(read_normalizer(path), path)

    @classmethod
    def from_file(cls, found: Tensors, path: Path | str) -> "QuantileNormalizer":
        """Raises DataError where what was read is not one."""
        if found.metadata.get("format") != _FORMAT:
            raise DataError(f"{path}: not a normaliser that tradax wrote")
        arrays = {name: named_array(found, name, path) for name in ("quantiles", "references")}
        distribution = found.metadata.get("distribution", "normal")
        names = feature_names(found.metadata, path)
        return cls.from_arrays(arrays, names, str(path), distribution)

    def write_joblib(self, path: Path | str) -> None:
        """A fitted QuantileTransformer for scikit-learn; we never read it ourselves."""
        import io

        import joblib

        buffer = io.BytesIO()
        joblib.dump(self._sklearn(), buffer)
        write_atomic(path, buffer.getvalue())

    def _sklearn(self) -> Any:
        from sklearn.preprocessing import QuantileTransformer

        transformer: Any = QuantileTransformer(
            n_quantiles=len(self.references), output_distribution=self.distribution
        )
        transformer.quantiles_ = self.quantiles
        transformer.references_ = self.references
        transformer.n_quantiles_ = len(self.references)
        transformer.n_features_in_ = self.quantiles.shape[1]
        return transformer


def read_normalizer(path: Path | str) -> Tensors:
    """A normaliser's file as it is. Raises DataError where it is damaged or of a newer version."""
    found = tensors(read_bytes(path, most=_MOST_BYTES, error=DataError), path, error=DataError)
    version = found.metadata.get("version", "1")
    check_version(int(version) if version.isdecimal() else version, VERSION, path, error=DataError)
    return found


def named_array(found: Tensors, name: str, path: Path | str) -> np.ndarray:
    """Raises DataError where there is none of this name."""
    if name not in found.arrays:
        raise DataError(f"{path}: has no {name}; the file is damaged")
    return found.arrays[name]


def feature_names(metadata: dict[str, str], path: Path | str) -> tuple[str, ...]:
    """The features' names; raises DataError where there is no list of text."""
    names = json_value(metadata.get("names", ""), path, error=DataError)
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{path}: has no names of features; the file is damaged")
    return tuple(names)
