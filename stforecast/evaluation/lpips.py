"""LPIPS: how different two pictures look to a network (version 0.1, AlexNet).

The weights are other people's and do not come with this package: they are read from files that the
user has. Either one file with all of it, the ``state_dict`` of ``lpips.LPIPS(net="alex")``, or two,
torchvision's AlexNet, ``alexnet-owt-*.pth``, and the ``alex.pth`` of the package ``lpips``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["load_lpips"]

# AlexNet's convolutions by torchvision's numbers: (channels out, in, kernel), stride, padding.
_LAYERS = {
    0: ((64, 3, 11), 4, 2),
    3: ((192, 64, 5), 1, 2),
    6: ((384, 192, 3), 1, 1),
    8: ((256, 384, 3), 1, 1),
    10: ((256, 256, 3), 1, 1),
}
_POOL_BEFORE = (3, 6)  # a 3 x 3 maximum with stride 2
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_SMALLEST = 31  # pixels: with fewer the second maximum has nothing left
_NAMES = (
    (re.compile(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)"), r"conv\1.\2"),
    (re.compile(r"lins?\.?(\d)\.model\.1\.weight"), r"linear\1"),
)


def load_lpips(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> Callable[[Any, Any], np.ndarray]:
    """Read the weights of LPIPS, and give the measure.

    Parameters
    ----------
    paths : path or sequence of paths
        ``.safetensors``, or ``.pth``/``.pt`` of plain tensors (nothing else in them is read).
        Together they must hold AlexNet's convolutions and the five linear layers.

    Returns
    -------
    callable
        Takes two arrays (N, 3, H, W) on [0, 1], or (N, 1, H, W), which is grey and taken three
        times. Gives (N,) distances: 0 for equal pictures.

    Raises
    ------
    InputError
        If a file is missing or cannot be read, or lacks a weight.
    """
    import torch

    files = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: dict[str, torch.Tensor] = {}
    for file in files:
        for name, tensor in _read(Path(file)).items():
            for pattern, ours in _NAMES:
                if pattern.fullmatch(name):
                    found[pattern.sub(ours, name)] = tensor.float()
    wanted: dict[str, tuple[int, ...]] = {}
    for i, (number, ((out, into, size), _, _)) in enumerate(_LAYERS.items()):
        wanted |= {f"conv{number}.weight": (out, into, size, size), f"conv{number}.bias": (out,)}
        wanted[f"linear{i}"] = (1, out, 1, 1)
    wrong = [k for k, shape in wanted.items() if k not in found or found[k].shape != shape]
    if wrong:
        parts = {"conv": "AlexNet's convolutions", "line": "the linear layers"}
        raise InputError(
            f"{', '.join(str(f) for f in files)}: no weights of LPIPS 0.1 with AlexNet; "
            f"{' and '.join(v for k, v in parts.items() if any(w[:4] == k for w in wrong))} are "
            "missing or of another shape. Give torchvision's alexnet-owt-*.pth together with the "
            "alex.pth of the package lpips, or one file with both"
        )

    def features(x: torch.Tensor) -> list[torch.Tensor]:
        out = []
        for number, (_, stride, padding) in _LAYERS.items():
            if number in _POOL_BEFORE:
                x = torch.nn.functional.max_pool2d(x, 3, 2)
            weight, bias = found[f"conv{number}.weight"], found[f"conv{number}.bias"]
            x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, stride, padding))
            out.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return out

    def measure(image: Any, reference: Any) -> np.ndarray:
        both = []
        for array in (image, reference):
            x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
            if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[-2:]) < _SMALLEST:
                raise InputError(
                    "LPIPS takes pictures of 1 or 3 channels and at least "
                    f"{_SMALLEST} x {_SMALLEST} pixels, found {tuple(x.shape)} (N, C, H, W)"
                )
            shift, scale = (x.new_tensor(v).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
            both.append((2 * x.expand(-1, 3, -1, -1) - 1 - shift) / scale)
        with torch.inference_mode():
            distance = both[0].new_zeros(len(both[0]))
            for i, (a, b) in enumerate(zip(*map(features, both), strict=True)):
                distance += ((a - b).square() * found[f"linear{i}"]).sum(1).mean((1, 2))
        return distance.double().numpy()

    return measure


def _read(path: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(
            f"there is no file {path}: LPIPS needs weights that do not come with this package, "
            "torchvision's alexnet-owt-*.pth and the alex.pth of the package lpips"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"{path} is no file of plain tensors, or holds more than these, and is not read"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, expected tensors by name")
    return {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
