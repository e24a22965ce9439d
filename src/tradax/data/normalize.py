"""Map every feature to a standard normal by its quantiles on the training rows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradax.errors import DataError
from tradax.files import write_atomic


@dataclass(frozen=True)
class QuantileNormalizer:
    """scikit-learn's QuantileTransformer(output_distribution="normal") as plain arrays."""

    quantiles: np.ndarray
    """[Q, F] float64"""
    references: np.ndarray
    """[Q] float64, from 0 to 1."""
    names: tuple[str, ...]
    """Of the F features."""

    @classmethod
    def fit(
        cls, values: np.ndarray, names: tuple[str, ...], n_quantiles: int = 1000
    ) -> "QuantileNormalizer":
        """Args: values: training rows [N, F], finite."""
        from sklearn.preprocessing import QuantileTransformer

        transformer = QuantileTransformer(
            n_quantiles=min(n_quantiles, len(values)),
            output_distribution="normal",
            subsample=len(values),  # every row: the result depends on no random draw
        ).fit(values)
        return cls(
            np.asarray(transformer.quantiles_), np.asarray(transformer.references_), tuple(names)
        )

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Args: values [N, F]; beyond the training range they are clipped, at about +-5.2."""
        return np.asarray(self._sklearn().transform(values))

    def save(self, path: Path | str) -> None:
        """As safetensors, with the names in its metadata."""
        from safetensors.numpy import save

        tensors = {
            "quantiles": np.array(self.quantiles, np.float64, order="C"),
            "references": np.array(self.references, np.float64, order="C"),
        }
        metadata = {"format": "tradax-normalizer", "names": json.dumps(self.names)}
        write_atomic(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path | str) -> "QuantileNormalizer":
        """Raises DataError where the file is foreign or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != "tradax-normalizer":
                    raise DataError(f"{path}: not a normaliser that tradax wrote")
                names = tuple(map(str, json.loads(metadata["names"])))
                quantiles, references = (file.get_tensor(k) for k in ("quantiles", "references"))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read as a normaliser ({error})") from None
        shapes = (quantiles.shape, references.shape)
        if quantiles.ndim != 2 or shapes != ((references.size, len(names)), (references.size,)):
            raise DataError(f"{path}: arrays of shapes {shapes} do not fit {len(names)} features")
        if not (np.isfinite(quantiles).all() and (np.diff(quantiles, axis=0) >= 0).all()):
            raise DataError(f"{path}: quantiles are not finite and increasing; the file is damaged")
        return cls(quantiles.astype(np.float64), references.astype(np.float64), names)

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
            n_quantiles=len(self.references), output_distribution="normal"
        )
        transformer.quantiles_ = self.quantiles
        transformer.references_ = self.references
        transformer.n_quantiles_ = len(self.references)
        transformer.n_features_in_ = self.quantiles.shape[1]
        return transformer
