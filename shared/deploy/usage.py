"""Holds the lines that load an exported model, for its card and for docs/model.md."""

from __future__ import annotations

from typing import Literal

from shared.data.schema import LabelSchema

WHOLE = """\
import json, timm, torch
from pathlib import Path
from PIL import Image, ImageOps

model = timm.create_model("local-dir:DIR", pretrained=True).eval().requires_grad_(False)  # or "hf-hub:owner/name"
look = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(look(ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")).unsqueeze(0))
"""
HEAD = """\
import json, timm, torch
from pathlib import Path
from PIL import Image, ImageOps
from safetensors.torch import load_file

model = timm.create_model("local-dir:DIR", pretrained=True).eval().requires_grad_(False)  # or "hf-hub:owner/name"
state = load_file("DIR/head.safetensors")
layers = [torch.nn.Linear(*reversed(w.shape)) for k, w in sorted(state.items(), key=lambda item: int(item[0].split(".")[0])) if k.endswith("weight")]
head = torch.nn.Sequential(*[m for layer in layers for m in (layer, torch.nn.ReLU(), torch.nn.Dropout(0))][:-2]).eval().requires_grad_(False)
head.load_state_dict(state)
look = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = head(model(look(ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")).unsqueeze(0)))
"""


def onnx_lines(fit: Literal["squash", "crop", "pad"]) -> str:
    """Returns the lines that run an exported graph on an image, which becomes square as `dataset.fit` says."""
    opened = 'ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")'
    square = {
        "squash": f"{opened}.resize(size, Image.Resampling.BICUBIC)",
        "crop": f"ImageOps.fit({opened}, size, Image.Resampling.BICUBIC)",
        "pad": f"ImageOps.pad({opened}, size, Image.Resampling.BICUBIC)",
    }[fit]
    return f"""\
import json, numpy as np, onnxruntime
from pathlib import Path
from PIL import Image, ImageOps

how = json.loads(Path("DIR/config.json").read_text())["tailfill"]["preprocessing"]
size = (how["resolution"], how["resolution"])
image = {square}
pixels = ((np.float32(image) / 255 - how["mean"]) / how["std"]).transpose(2, 0, 1)[None].astype(np.float32)
session = onnxruntime.InferenceSession("DIR/model.onnx")
logits, probabilities = session.run(["logits", "probabilities"], {{"pixel_values": pixels}})  # calibrated
"""


def probabilities_lines(schema: LabelSchema) -> str:
    """Returns the lines that turn logits into calibrated probabilities, a group each."""
    lines = ['temperature = json.loads(Path("DIR/config.json").read_text())["tailfill"]["temperatures"]']
    for name, columns in schema.slices().items():
        call = "softmax(1)" if schema.group(name).kind == "one" else "sigmoid()"
        lines.append(
            f"p_{len(lines)} = (logits[:, {columns.start}:{columns.stop}] / temperature[{name!r}]).{call}  # {name}"
        )
    return "\n".join(lines)
