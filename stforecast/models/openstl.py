"""Weights of the authors' public code (OpenSTL), read into our networks by name."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .registry import misfit, network_class
from .simvp import SimVPv2
from .surroundings import own_defaults
from .translators import NAMES

logger = logging.getLogger(__name__)

# What Lightning, and what several processes, put before every name.
_PREFIX = re.compile(r"^((module|model|method\.model)\.)+")
# Our module names, from theirs; the first match of each pattern is replaced, in this order.
_NAMES = (
    (r"^enc\.enc\.(\d+)\.conv\.", r"encoder.\1."),
    (r"^dec\.dec\.(\d+)\.conv\.conv\.0\.", r"decoder.\1.conv."),
    (r"^dec\.dec\.(\d+)\.conv\.", r"decoder.\1."),
    (r"^dec\.readout\.", "readout."),
    # IncepU
    (r"^hid\.enc\.(\d+)\.(conv1|layers)\.", r"translator.down.\1.\2."),
    (r"^hid\.dec\.(\d+)\.(conv1|layers)\.", r"translator.up.\1.\2."),
    (r"^(translator\.\w+\.\d+)\.conv1\.", r"\1.project."),
    (r"^(translator\.\w+\.\d+)\.layers\.(\d)\.(conv|norm)\.", r"\1.\3s.\2."),
    # Blocks in a row: gSTA, and what takes its place
    (r"^hid\.enc\.(\d+)\.reduction\.", r"translator.\1.resize."),
    (r"^hid\.enc\.(\d+)\.block\.", r"translator.\1."),
    (r"\.attn\.proj_1\.", ".attention.project_in."),
    (r"\.attn\.proj_2\.", ".attention.project_out."),
    (r"\.attn\.spatial_gating_unit\.conv0\.", ".attention.local."),
    (r"\.attn\.spatial_gating_unit\.conv_spatial\.", ".attention.dilated."),
    (r"\.attn\.spatial_gating_unit\.conv1\.", ".attention.gate."),
    (r"\.attn\.spatial_gating_unit\.fc\.0\.", ".attention.squeeze."),
    (r"\.attn\.spatial_gating_unit\.fc\.2\.", ".attention.excite."),
    (r"\.attn\.(gate\.|sigma$)", r".attention.\1"),
    (r"\.attn\.value\.DW_conv0\.", ".attention.local."),
    (r"\.attn\.value\.DW_conv1\.", ".attention.near."),
    (r"\.attn\.value\.DW_conv2\.", ".attention.far."),
    (r"\.attn\.value\.PW_conv\.", ".attention.pointwise."),
    (r"\.gnconv\.proj_(in|out)\.", r".attention.project_\1."),
    (r"\.gnconv\.dwconv\.", ".attention.depthwise."),
    (r"\.gnconv\.pws\.", ".attention.widen."),
    (r"\.attn\.(weight|bias)$", r".attention.local.\1"),
    (r"^(translator\.\d+)\.conv1\.", r"\1.attention.project_in."),
    (r"^(translator\.\d+)\.conv2\.", r"\1.attention.project_out."),
    (r"\.pos_embed\.", ".position."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.project."),
    (r"\.attn\.relative_position_bias_table$", ".attention.bias"),
    (r"\.mlp_tokens\.", ".attention."),
    (r"\.pwconv1\.", ".feed_forward.expand."),
    (r"\.pwconv2\.", ".feed_forward.contract."),
    (r"\.(mlp|mlp_channels)\.", ".feed_forward."),
    (r"\.fc1\.", ".expand."),
    (r"\.fc2\.", ".contract."),
    (r"\.dwconv\.(dwconv\.)?", ".depthwise."),
    (r"\.conv_dw\.", ".depthwise."),
    (r"\.conv_pw\.", ".pointwise."),
    (r"\.norm_([12])\.", r".norm\1."),
    (r"\.(layer_scale_|gamma_?)([12])$", r".scale\2"),
    (r"\.gamma$", ".scale"),
)
# Swin's constants: the first we work out, the second that code's forward pass ignores as well.
_CONSTANTS = ("relative_position_index", "attn_mask")
# Their names for our options; `model_type` and the lengths are dealt with by themselves.
_SETTINGS = {
    "hid_S": "encoder_channels",
    "hid_T": "translator_channels",
    "N_S": "encoder_layers",
    "N_T": "translator_blocks",
    "mlp_ratio": "mlp_ratio",
    "drop": "dropout",
    "drop_path": "drop_path",
    "spatio_kernel_enc": "encoder_kernel",
    "spatio_kernel_dec": "decoder_kernel",
}


def load_openstl(
    path: str | os.PathLike[str],
    *,
    model: str = "SimVP",
    target_steps: int | None = None,
    legacy: bool | None = None,
    **hyper_parameters: Any,
) -> Any:
    """Read a network that the authors' public code trained.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or ``.pth`` / ``.ckpt`` (read with ``weights_only=True``: no code runs),
        of the weights alone, or of a training that saved more (``latest.pth``, Lightning's).
    model : str
        That code's name of it: "SimVP" (SimVPv2 and its translators), or one of the recurrent
        networks of :func:`stforecast.models.registry.names`.
    target_steps : int, optional
        T', that code's ``aft_seq_length``; as long as the input unless given.
    legacy : bool, optional
        For ConvLSTM and PredRNN++: whether the weights are of version 0.3.0 or older, as all
        released ones are. The cells are others since, and the file does not tell which: unless
        given, they are taken for new ones, and a warning says so.
    **hyper_parameters
        By that code's names; always ``in_shape`` (T, C, H, W). What is left out has that code's
        default. Of the recurrent networks: those of its configuration files (``num_hidden``,
        ``patch_size``, ...). Of SimVP: ``hid_S``, ``hid_T``, ``N_S``, ``N_T``, ``model_type``
        ("gSTA", "IncepU", "ViT", "Swin", "Poolformer", "MLP" or "MLPMixer", "ConvMixer", "TAU",
        "VAN", "Moga" or "MogaNet", "HorNet", "ConvNeXt", "Uniformer", in any case), ``mlp_ratio``,
        ``drop``, ``drop_path``, ``spatio_kernel_enc``, ``spatio_kernel_dec``. ``drop_path=None``
        switches stochastic depth off, which 0 does not (see `SimVPv2`).

    Returns
    -------
    torch.nn.Module
        In evaluation mode, in float64 if all of the file is: a SimVPv2, or one of
        ``stforecast.models.recurrent``. What takes no part in a forecast in that code either does
        not require gradients.

    Raises
    ------
    InputError
        If there is no such network, or a hyper-parameter is unknown, or tensors are missing,
        superfluous or of another shape.
    """
    options = dict(hyper_parameters)
    if "in_shape" not in options:
        raise InputError("load_openstl needs in_shape=(T, C, H, W)")
    try:
        steps, channels, *grid = (int(n) for n in options.pop("in_shape"))
        if len(grid) != 2:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError("in_shape must be (T, C, H, W)") from None
    sizes = steps, target_steps or steps, channels
    if model.lower() in ("simvp", "simvpv2"):
        if legacy is not None:
            raise InputError("legacy is of ConvLSTM and PredRNN++ alone: leave it out")
        network, renamed = _simvp(sizes, grid, options, Path(path))
    else:
        network, renamed = _recurrent(model, sizes, grid, options, Path(path), legacy)
    ours = network.state_dict()
    renamed = {k: _shaped(v, ours.get(k)) for k, v in renamed.items()}
    shapes = ({k: v.shape for k, v in both.items()} for both in (ours, renamed))
    if listing := misfit(*shapes):
        raise InputError(f"the weights in {path} do not fit these hyper-parameters: {listing}")
    if all(renamed[k].dtype == torch.float64 for k, _ in network.named_parameters()):
        network.double()
    network.load_state_dict(renamed)
    return network.eval()


def _recurrent(
    name: str,
    sizes: tuple[int, int, int],
    grid: list[int],
    options: dict[str, Any],
    path: Path,
    legacy: bool | None,
) -> tuple[Any, dict[str, Tensor]]:
    """A network by its own class's tables, and the tensors by its names."""
    kind = network_class(name)
    if not hasattr(kind, "from_openstl"):
        raise InputError(f"the public code has no {name!r} that can be read here")
    tensors = _unprefixed(path)
    if kind.openstl_ignored is not None:
        tensors = {k: v for k, v in tensors.items() if not re.search(kind.openstl_ignored, k)}
    renamed = kind.arranged({_rename(k, kind.openstl_names): v for k, v in tensors.items()})
    known = sorted(options)
    settings = kind.from_openstl(options, {k: tuple(v.shape) for k, v in renamed.items()})
    if options:
        known = [k for k in known if k not in options]
        raise InputError(
            f"unknown hyper-parameters {sorted(options)} of {name}; known of those given: "
            f"in_shape, {', '.join(known)}"
        )
    if kind.has_legacy:
        if legacy is None:
            logger.warning(
                "%s: the cell changed in December 2023 and the file does not tell which it is of. "
                "It is taken for the new one; weights of version 0.3.0 or older, as all released "
                "ones are, need legacy=True",
                name,
            )
        settings["legacy"] = bool(legacy)
    elif legacy is not None:
        raise InputError("legacy is of ConvLSTM and PredRNN++ alone: leave it out")
    if kind.tied_to_grid(settings):
        settings["grid"] = grid
    with own_defaults(random=torch.device("cpu")):
        network = kind(*sizes, **settings)
    if "output_range" in dict(network.named_buffers()):  # theirs are of data in [0, 1]
        renamed["output_range"] = network.output_range
    return network, renamed


def _simvp(
    sizes: tuple[int, int, int],
    grid: list[int],
    options: dict[str, Any],
    path: Path,
) -> tuple[SimVPv2, dict[str, Tensor]]:
    """A SimVPv2, and the tensors by its names."""
    model_type = options.pop("model_type", "gSTA")
    translator = str(model_type).lower()
    translator = {"mlp": "mlpmixer", "moga": "moganet"}.get(translator, translator)
    if translator not in NAMES:
        raise InputError(
            f"model_type {model_type!r} is not supported; this library has {', '.join(NAMES)}"
        )
    unknown = sorted(set(options) - set(_SETTINGS))
    if unknown:
        raise InputError(
            f"unknown hyper-parameters {unknown}; known: in_shape, {', '.join(_SETTINGS)}"
        )
    # That code's own defaults, where its caller gave nothing.
    settings: dict[str, Any] = {
        "encoder_channels": 16,
        "translator_channels": 256,
        "encoder_layers": 4,
        "translator_blocks": 4,
        "drop_path": 0.0,
        "translator": translator,
        "grid": grid,
    }
    settings |= {_SETTINGS[k]: v for k, v in options.items()}
    settings["encoder_layers"] -= settings["encoder_layers"] % 2  # an odd N_S loses a layer there
    with own_defaults(random=torch.device("cpu")):
        model = SimVPv2(*sizes, **settings)
    theirs = _unprefixed(path).items()
    return model, {_rename(k, _NAMES): v for k, v in theirs if not k.endswith(_CONSTANTS)}


def _unprefixed(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by their names in the network alone."""
    return {_PREFIX.sub("", k): v for k, v in read_tensors(path).items()}


def _shaped(theirs: Tensor, ours: Tensor | None) -> Tensor:
    """A tensor in the shape of ours, which has no sides of 1, or no depth but more channels."""
    if ours is not None:
        for form in (theirs, theirs.flatten(1, 2) if theirs.ndim == 5 else theirs):
            if form.squeeze().shape == ours.squeeze().shape:
                return form.reshape(ours.shape)
    return theirs


def _rename(name: str, table: Sequence[tuple[str, str]]) -> str:
    for pattern, ours in table:
        name = re.sub(pattern, ours, name, count=1)
    return name


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of weights; no code in it runs.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or what ``torch.load(weights_only=True)`` reads.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read so.
    """
    if not path.is_file():
        raise InputError(f"no weights at {path}: there is no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    import pickle
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # it warns of old formats before it refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} cannot be read as weights alone: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    return {k: v for k, v in content.items() if isinstance(v, Tensor)}
