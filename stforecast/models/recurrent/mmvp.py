"""MMVP: motion as matrices of similarity between frames, appearance as what these move.

Zhong, Liang, Zharkov, Neumann: "MMVP: Motion-Matrix-based Video Prediction" (arXiv:2308.16154),
section 3, as the public code of the SimVPv2 paper (arXiv:2211.12509) has it.

Shapes: n = h w cells of a grid of matrices; S = ``encoder_channels`` (hid_S), K =
``predictor_channels`` (hid_T). The fine grid has H / (2 s1 s2) rows, the coarse one s3 times fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ..layers import Conv2d, full_precision
from .base import Recurrent, numbers, unused
from .mmvp_layers import (
    Coarsening,
    MatrixPredictor,
    Refinement,
    dense_blocks,
    filter_block,
    resized,
)


class MMVP(Recurrent):
    """MMVP: matrices say which cell of one frame is like which of the next; future ones compose.

    Maps (B, T, C, H, W) to (B, T', C', H, W) in one pass, T of at least 2.

    Any H x W will do: a side of less than 2 s1 s2 s3 points, s1, s2 and s3 the `factors`, is padded
    to as many, an odd one by one, and where the grids of matrices do not fit, features are
    interpolated. The matrices have (H W)^2 / (2 s1 s2)^4 entries each.

    Parameters
    ----------
    input_steps, target_steps, channels : int
        T, T' and C.
    encoder_channels, predictor_channels : int
        S and K, widths of the encoder and of the predictor of matrices.
    factors : sequence of int
        s1, s2 and s3, 2 or 4 each: by what the encoder coarsens the grid, after a first halving.
    encoder_blocks, decoder_blocks, enhancer_blocks : int
        Residual dense blocks of each part.
    direct : bool
        Predict all T' matrices from all T - 1 at once; otherwise by the maximum over time, for T =
        4 and T' = 1 alone (``use_direct_predictor``).
    encode_targets : bool
        Let the filters' batch norms see the target frames as well in training, as the public code
        does: a small leak, for comparison.
    **options
        As of :class:`~stforecast.models.recurrent.base.Recurrent`, without `patch`; `sampling` can
        only be "never".

    Notes
    -----
    ``scale_fuser_1``, ``scale_fuser_2`` and ``fuse_conv`` are in the files of the public code and
    in its parameter counts, and take no part in anything. That code scrambles its output where
    there is more than one channel; here it is in order.

    References
    ----------
    .. [1] arXiv:2308.16154, section 3: matrices, their prediction, and the composition of features.
    """

    goes_on = False
    changes = False
    benchmarks: ClassVar[dict[str, dict[str, Any]]] = {
        "": {},
        "kth": {"encoder_channels": 16, "predictor_channels": 96},
    }
    limits: ClassVar[Mapping[str, tuple[int, int]]] = {
        "encoder_channels": (2, 100_000),
        "predictor_channels": (1, 1_000_000),
        "factors": (2, 4),
        "encoder_blocks": (0, 1_000),
        "decoder_blocks": (0, 1_000),
        "enhancer_blocks": (0, 1_000),
    }
    flags = ("direct", "encode_targets")
    lists = ("factors",)
    openstl_names = (
        (r"^enc\.inconv\.", "embed."),
        (r"^enc\.block_rrdb\.", "encoder."),
        (r"^enc\.pre_downsample_block\.0\.", "coarsen.0."),
        (r"^enc\.downsample_high\.", "coarsen.1."),
        (r"^enc\.downsample_low\.", "coarsen.2."),
        (r"^filter\.filter_block\.", "filters."),
        (r"^dec\.upsample_block_low2high\.", "refine.0."),
        (r"^dec\.upsample_block\.1\.", "refine.2."),
        (r"^dec\.upsample_block\.0\.", "refine.1."),
        (r"^dec\.rrdb_block\.", "decoder."),
        (r"^dec\.outc\.", "readout."),
        (r"^enhance\.model\.", "enhance."),
        (r"^enhance\.outconv\.", "enhanced."),
        (r"^hid\.scale_fuser", "scale_fuser"),
        (r"^hid\.predictor\.fuse_conv\.", "fuse_conv."),
        (r"^hid\.predictor\.conv1\.", "predictor.embed."),
        (r"^hid\.predictor\.out_conv\.", "predictor.readout."),
        (r"^hid\.predictor\.predictor\.", "predictor."),
        (r"\.(conv|bn)_pre_(\d)\.", r".before_\2.\1."),
        (r"\.(conv|bn)1_1\.", r".fine.\1."),
        (r"\.conv3d_1\.", ".fine_time."),
        (r"\.conv_translate\.0\.", ".translate.conv."),
        (r"\.bn_translate\.", ".translate.bn."),
        (r"\.(conv|bn)2_1\.", r".coarse.\1."),
        (r"\.(conv3d_2|temporal_layer)\.", ".coarse_time."),
        (r"\.coarse_time\.0\.", ".coarse_time.conv."),
        (r"\.(conv|bn)3_1\.", r".join.\1."),
        (r"\.(conv|bn)4_1\.", r".after.\1."),
        (r"\.(conv|bn)3d\.", r".\1."),
        (r"\.bn\.", ".norm."),
        (r"\.conv\.conv\.0\.", ".conv."),
    )

    def __init__(
        self,
        input_steps: int = 12,
        target_steps: int = 12,
        channels: int = 1,
        *,
        encoder_channels: int = 32,
        predictor_channels: int = 192,
        factors: Sequence[int] = (2, 2, 2),
        encoder_blocks: int = 2,
        decoder_blocks: int = 2,
        enhancer_blocks: int = 2,
        direct: bool = True,
        encode_targets: bool = False,
        **options: Any,
    ) -> None:
        own: dict[str, Any] = {
            "encoder_channels": encoder_channels,
            "predictor_channels": predictor_channels,
            "factors": factors,
            "encoder_blocks": encoder_blocks,
            "decoder_blocks": decoder_blocks,
            "enhancer_blocks": enhancer_blocks,
            "direct": direct,
            "encode_targets": encode_targets,
        }
        options.setdefault("sampling", "never")
        super().__init__(input_steps, target_steps, channels, stride=2, own=own, **options)
        if self.patch != 1 or options["sampling"] != "never":
            raise InputError("MMVP predicts all frames at once: leave patch and sampling out")
        if len(factors) != 3 or 3 in factors or input_steps < 2:
            raise InputError(
                f"MMVP needs three factors of 2 or 4 and input_steps of at least 2, found "
                f"{list(factors)} and {input_steps}"
            )
        if encode_targets and self.out_channels != self.channels:
            raise InputError(
                "encode_targets=True needs targets of all input channels, found "
                f"{self.channels} in, {self.out_channels} out"
            )
        self.factors = s1, s2, s3 = tuple(factors)
        self.least = 2 * s1 * s2 * s3
        S, C = encoder_channels, self.out_channels
        conv = {"circular_longitude": self.circular_longitude}
        self.embed = Conv2d(4 * self.channels, S, 3, **conv)
        self.encoder = dense_blocks(S, encoder_blocks, **conv)
        self.coarsen = nn.ModuleList(
            Coarsening(S * 2**i, factor, **conv) for i, factor in enumerate(factors)
        )
        self.filters = nn.ModuleList(
            (filter_block(4 * S, S, **conv), filter_block(8 * S, 2 * S, **conv))
        )
        self.predictor = MatrixPredictor(
            predictor_channels, input_steps - 1, target_steps, direct=direct, **conv
        )
        self.refine = nn.ModuleList(
            (
                Refinement(8 * S, s3, skip=True, **conv),
                Refinement(4 * S, s2, skip=True, **conv),
                Refinement(2 * S, s1, skip=False, **conv),
            )
        )
        self.decoder = dense_blocks(S, decoder_blocks, **conv)
        self.readout = nn.Conv2d(S, 4 * C, 1)
        self.enhance = nn.Sequential(
            Conv2d(2 * C, S, 3, **conv), *dense_blocks(S, enhancer_blocks, **conv)
        )
        self.enhanced = nn.Conv2d(S, C, 1)
        self.scale_fuser_1 = unused(Refinement(2 * S, 2, skip=True, **conv))
        self.scale_fuser_2 = unused(filter_block(S, S, **conv)[:6])
        K = predictor_channels
        self.fuse_conv = unused(nn.Conv2d(2 * K, K, 3, bias=False))

    def cut(self, x: Tensor) -> Tensor:
        """Pad to an even number of rows and columns, and to enough: (B, n, C, H, W) -> the same."""
        x = super().cut(x)
        rows, columns = (max(0, self.least - n) for n in x.shape[-2:])
        if not rows and not columns:
            return x
        padded = F.pad(x.flatten(0, 1), (0, columns, 0, rows), mode="replicate")
        return padded.unflatten(0, x.shape[:2])

    def unroll(
        self, x: Tensor, steps: int, y: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Forecast all frames in one pass.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)
        steps : int
            T'.
        y : Tensor of shape (B, T', C, H, W), optional
            Frames that the filters' batch norms see as well.
        mask
            Not used.

        Returns
        -------
        frames : Tensor of shape (B, T', C', H, W)
        state : None

        Raises
        ------
        InputError
            If the input has other steps or channels, or other steps are asked.
        """
        self._check_input(x, steps)
        if steps != self.target_steps:
            raise InputError(
                f"this MMVP forecasts {self.target_steps} steps at once, found {steps} asked"
            )
        (B, T), size, padded = x.shape[:2], x.shape[-2:], self.cut(x)
        fine = [n // (2 * self.factors[0] * self.factors[1]) for n in padded.shape[-2:]]
        coarse = [n // self.least for n in padded.shape[-2:]]
        seen = padded if y is None else torch.cat([padded, self.cut(y)], dim=1)

        # Appearance: features of each frame on three grids.
        z = self.encoder(self.embed(F.pixel_unshuffle(seen.flatten(0, 1), 2)))
        features = []
        for layer in self.coarsen:
            z = layer(z)
            features.append(z)
        # Motion: how alike the cells of one frame and of the next are, and how they will be.
        matrices = []
        for block, feature, grid in zip(self.filters, features[1:], (fine, coarse), strict=True):
            g = block(resized(feature, grid, "bilinear"))
            matrices.append(similarity(g.unflatten(0, (B, -1))[:, :T]))
        ahead = self.predictor(matrices[0], fine)
        futures = ahead, _matrices_on(ahead, fine, coarse)
        motion = [(_shares(p), _shares(f)) for p, f in zip(matrices, futures, strict=True)]

        # Both: the features move as the matrices say, and are decoded; so do the frames.
        first, *others = (f.unflatten(0, (B, -1))[:, :T].flatten(0, 1) for f in features)
        s2 = self.factors[1]
        whole = [n // s2 * s2 for n in first.shape[-2:]]
        shuffled = F.pixel_unshuffle(resized(first, whole, "bilinear"), s2)
        grids = (fine, fine, coarse)
        moved = [
            compose(resized(f, grid, "bilinear"), *motion[grid is coarse], grid)
            for f, grid in zip((shuffled, *others), grids, strict=True)
        ]
        moved[0] = F.pixel_shuffle(moved[0], s2)
        moved = [resized(m, f.shape[-2:], "bilinear") for m, f in zip(moved, features, strict=True)]
        z = self.refine[1](self.refine[0](moved[2], moved[1]), moved[0])
        frames = F.pixel_shuffle(self.readout(self.decoder(self.refine[2](z))), 2)

        cell = self.factors[0] * s2
        halved = F.pixel_unshuffle(padded[:, :, : self.out_channels].flatten(0, 1), 2)
        halved = resized(halved, [n * cell for n in fine], "nearest")
        copies = compose(F.pixel_unshuffle(halved, cell), *motion[0], fine)
        copies = F.pixel_shuffle(F.pixel_shuffle(copies, cell), 2)
        copies = resized(copies, frames.shape[-2:], "nearest").to(frames.dtype)
        z = self.enhance(torch.cat([frames, copies], dim=1))
        with full_precision(z):
            out = self.enhanced(z.to(self.enhanced.weight.dtype))
        out = resized(out, padded.shape[-2:], "nearest")
        return out.unflatten(0, (B, -1))[..., : size[0], : size[1]], None

    def teach(
        self,
        x: Tensor,
        y: Tensor,
        step: int,
        generator: torch.Generator | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Forecast from a training sequence, as ``forward`` does.

        Parameters
        ----------
        x, y : Tensor of shape (B, T, C, H, W) and (B, T', C', H, W)
            Inputs and targets, which are seen with `encode_targets` alone; the last input frame
            stands for a target that is NaN.
        step, generator, mask
            Not used: nothing is drawn.

        Returns
        -------
        frames : Tensor of shape (B, T', C', H, W)
        extra : Tensor
            0.
        """
        also = None
        if self.settings["encode_targets"]:
            also = torch.where(y.isnan(), x[:, -1:], y)
        return self.unroll(x, y.shape[1], also)[0], x.new_zeros(())

    @classmethod
    def from_openstl(
        cls, options: dict[str, Any], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        """Our settings from those of that code; parameters as of :meth:`.Recurrent.from_openstl`.

        ``encode_targets`` may be among them.
        """
        settings: dict[str, Any] = {}
        if "downsample_setting" in options:
            settings["factors"] = numbers(options.pop("downsample_setting"))
        for theirs, ours in (
            ("hid_S", "encoder_channels"),
            ("hid_T", "predictor_channels"),
            ("rrdb_encoder_num", "encoder_blocks"),
            ("rrdb_decoder_num", "decoder_blocks"),
            ("rrdb_enhance_num", "enhancer_blocks"),
        ):
            if theirs in options:
                settings[ours] = int(options.pop(theirs))
        if "use_direct_predictor" in options:
            settings["direct"] = bool(options.pop("use_direct_predictor"))
        settings["encode_targets"] = bool(options.pop("encode_targets", False))
        options.pop("shuffle_setting", None)  # in its files, and without effect there
        return settings


def similarity(g: Tensor) -> Tensor:
    """Cosine similarity of all cells of a frame with all of the next (section 3, motion matrix).

    Parameters
    ----------
    g : Tensor of shape (B, T, c, h, w)

    Returns
    -------
    Tensor of shape (B, T - 1, n, n)
        Cells of the earlier frame, cells of the later.
    """
    g = g.flatten(3)
    g = g / (g.norm(dim=2, keepdim=True) + 1e-6)
    return g[:, :-1].transpose(2, 3) @ g[:, 1:]


def compose(features: Tensor, past: Tensor, future: Tensor, grid: Sequence[int]) -> Tensor:
    """Features of future frames: those of all observed ones, moved on and weighted.

    With C_i = A_i A_(i+1) ... A'_t the way from observed frame i to target step t, this is sum_i
    f_i C_i over sum_i 1 C_i. All ways end in A'_t: what leads to the last observed frame is added
    up first, frame by frame.

    Parameters
    ----------
    features : Tensor of shape (B T, c, h, w)
    past, future : Tensor of shape (B, T - 1, n, n) and (B, T', n, n)
        A and A'.
    grid : (int, int)
        h and w.

    Returns
    -------
    Tensor of shape (B T', c, h, w)
    """
    f = features.flatten(2).unflatten(0, (len(past), -1))  # (B, T, c, n)
    with full_precision(past):
        f = F.pad(f.to(past.dtype), (0, 0, 0, 1), value=1.0)  # and a row of ones, for the weights
        gathered = f[:, 0]
        for i in range(past.shape[1]):
            gathered = gathered @ past[:, i] + f[:, i + 1]
        moved = gathered[:, None] @ future  # (B, T', c + 1, n)
        moved = moved[:, :, :-1] / (moved[:, :, -1:] + 1e-6)
    return moved.flatten(0, 1).unflatten(2, tuple(grid))


def _matrices_on(matrices: Tensor, fine: Sequence[int], coarse: Sequence[int]) -> Tensor:
    """Matrices (B, T', n, n) on another grid: first the later cells, then the earlier ones."""
    B, T, n = matrices.shape[:3]
    later = resized(matrices.reshape(B * T, n, *fine), coarse, "bilinear")
    earlier = later.flatten(2).transpose(1, 2).unflatten(2, tuple(fine))
    earlier = resized(earlier, coarse, "bicubic").flatten(2).transpose(1, 2)
    return earlier.unflatten(0, (B, T))


def _shares(matrices: Tensor) -> Tensor:
    """Softmax over all n^2 entries of a matrix at once, in full precision."""
    with full_precision(matrices):
        full = matrices.float() if matrices.dtype in (torch.bfloat16, torch.half) else matrices
        return full.flatten(-2).softmax(-1).view_as(matrices)
