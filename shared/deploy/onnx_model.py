"""Predicts labels of images by an exported ONNX graph, without torch and without the study."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.deploy.description import CONFIG, read_description
from shared.deploy.preprocess import normalised
from shared.digests import file_digest
from shared.errors import ConfigError, DataError

GRAPH = "model.onnx"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INPUT, LOGITS, PROBABILITIES = "pixel_values", "logits", "probabilities"
"""Name the graph's input, float32 `[n, 3, r, r]`, normalised, and its outputs, float32 `[n, C]`; the probabilities are calibrated."""


def check_installed(*packages: str) -> None:
    """Raises ConfigError if one of these packages is not installed, or cannot be imported."""
    for name in packages:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"{name}: is not installed ({error}); run `make venv`, or pip install 'CHECKOUT[onnx]' with the path of a checkout of tailfill"
            ) from error


class OnnxModel:
    """Holds an exported graph in ONNX Runtime."""

    batch = 32

    def __init__(self, folder: Path, device: Literal["cpu", "cuda"] | None = None) -> None:
        """Reads the folder; `device` is that of TAILFILL_DEVICE, and None takes a GPU if there is one.

        Raises DataError if the folder is not an export in the form `onnx`, and ConfigError if ONNX Runtime is not installed or has no such device.
        """
        self.description = read_description(folder)
        path = folder / GRAPH
        try:
            digest = file_digest(path)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); export the model with `tailfill export model DIR --format onnx`"
            ) from error
        if digest != self.description.sha256.get(GRAPH):
            raise DataError(f"{path}: is not the file that {CONFIG} describes; export the model again")
        check_installed("onnxruntime")
        import onnxruntime

        on_gpu = device != "cpu" and CUDA in onnxruntime.get_available_providers()
        if device == "cuda" and not on_gpu:
            raise ConfigError(
                "TAILFILL_DEVICE: is cuda, and ONNX Runtime has no CUDA; pip install onnxruntime-gpu, or unset it"
            )
        providers = [CUDA, CPU] if on_gpu else [CPU]
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=providers)
            side = self.description.preprocessing.resolution
            answers = self.probabilities(np.zeros((1, 3, side, side), np.uint8))
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{path}: ONNX Runtime cannot run it ({first}); export the model again") from error
        if answers.shape != (1, width := self.description.schema_.width):
            raise DataError(
                f"{path}: answers with the shape {answers.shape}, and {CONFIG} has {width} classes; export the model again"
            )

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns calibrated probabilities `[n, C]` of pixels `[n, 3, r, r]`, 0 to 255."""
        inputs = {INPUT: normalised(pixels, self.description.preprocessing)}
        found: NDArray[np.float32] = self._session.run([PROBABILITIES], inputs)[0]
        return found
