"""The one roll-out of networks that are fed frame by frame, and then with their own frames.

Shapes: B samples, T input steps, T' target steps, C and C' channels in and out, H x W grid; p the
patch; P = p^2 C channels of the h x w patches. There are F = T + T' - 1 steps: that of number t
takes frame t and gives an estimate of frame t + 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from .sampling import Sampling, draw


class Unrolled(nn.Module):
    """A network of :meth:`begin`, :meth:`step` and perhaps :meth:`inlet`, unrolled over frames.

    These are pure functions of their arguments: nothing is kept from one sequence to the next.
    Where it is given more channels than it forecasts, the further channels of its k-th own frame
    (k = 0, 1, ...) are those of input frame k mod T. The attributes are set by a subclass.

    Attributes
    ----------
    settings : dict
        Its arguments.
    input_steps, target_steps, channels, out_channels : int
        T, T', C and C'.
    patch, stride : int
        p, and what H and W are padded to a multiple of.
    circular_longitude : bool
        Whether they are padded with the other end.
    sampling : Sampling
        When true frames are fed in training.
    cells_grid : (int, int) or None
        Rows and columns of patches that weights belong to; None where any will do.
    predict_change : bool
        Whether what a step gives is a change of the frame that went into it.
    tendency_std : Tensor of shape (C',)
        The unit of changes, where `predict_change` is true.
    """

    settings: dict[str, Any]
    input_steps: int
    target_steps: int
    channels: int
    out_channels: int
    patch: int
    stride: int
    circular_longitude: bool
    sampling: Sampling
    cells_grid: tuple[int, int] | None
    predict_change: bool
    tendency_std: Tensor
    #: Whether it can be told to ``predict_change``: it can, where it takes frame by frame.
    changes: ClassVar[bool] = True

    # --- what a subclass has ----------------------------------------------------------------------

    def inlet(self, frames: Tensor) -> Tensor:
        """What of a step depends on the frame alone: known frames go through it all at once.

        Parameters
        ----------
        frames : Tensor of shape (N, P, h, w)

        Returns
        -------
        Tensor of shape (N, ...)
        """
        return frames

    def begin(self, frame: Tensor) -> Any:
        """The state before the first step.

        Parameters
        ----------
        frame : Tensor of shape (B, P, h, w)
            The first, for its sizes, type and device.
        """
        raise NotImplementedError

    def step(self, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step.

        Parameters
        ----------
        u : Tensor of shape (B, ...)
            What :meth:`inlet` gives of the frame.
        state : Any
            Of the step before.

        Returns
        -------
        frame : Tensor of shape (B, P', h, w)
            What :meth:`close` makes an estimate of the next frame, P' = p^2 C'.
        state : Any
        """
        raise NotImplementedError

    def close(self, z: Tensor, fed: Tensor) -> Tensor:
        """An estimate of the next frame, in the end: what the step gives, or a change by it.

        Parameters
        ----------
        z : Tensor of shape (B, P', h, w)
            Of :meth:`step`.
        fed : Tensor of shape (B, P, h, w)
            The frame that went into it.

        Returns
        -------
        Tensor of shape (B, P', h, w)
        """
        if not self.predict_change:
            return z
        return self.forecast_part(fed) + self.per_place(self.tendency_std) * z.to(fed.dtype)

    def extra_loss(self, frames: Tensor, truth: Tensor, state: Any) -> Tensor:
        """What is added to the mean loss over all F frames in training.

        Parameters
        ----------
        frames, truth : Tensor of shape (B, F, C', H, W)
            All outputs, and the frames they estimate.
        state : Any
            After the last step.

        Returns
        -------
        Tensor
            A number.
        """
        return frames.new_zeros(())

    # --- roll-out ---------------------------------------------------------------------------------

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Forecast T' steps from T: (B, T, C, H, W) -> (B, T', C', H, W).

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)
        steps : int, optional
            How many to forecast; T' unless given. The network simply goes on.

        Returns
        -------
        Tensor of shape (B, T', C', H, W)
        """
        steps = self.target_steps if steps is None else steps
        return self.unroll(x, steps)[0][:, -steps:]

    def teach(
        self,
        x: Tensor,
        y: Tensor,
        step: int,
        generator: torch.Generator | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Go through a training sequence, with true frames among the network's own.

        Parameters
        ----------
        x, y : Tensor of shape (B, T, C, H, W) and (B, T', C', H, W)
            Inputs and targets. A target that is NaN is never fed.
        step : int
            Of the optimiser, from which the sampling rates follow.
        generator : torch.Generator, optional
            On the CPU, for the draws; torch's own unless given.
        mask : Tensor of bool, shape (B, n), optional
            In place of draws: where the true frame is fed, in the last n steps.

        Returns
        -------
        frames : Tensor of shape (B, F, C', H, W)
            All outputs: estimates of the input frames from the second on, then of the targets.
        extra : Tensor
            What is added to their mean loss.
        """
        if mask is None:
            rates = self.sampling.rates(step, x.shape[1], y.shape[1])
            mask = draw(rates, len(x), generator)
        frames, state = self.unroll(x, y.shape[1], y, mask)
        truth = torch.cat([x[:, 1:, : self.out_channels], y], dim=1)
        return frames, self.extra_loss(frames, truth, state)

    def unroll(
        self, x: Tensor, steps: int, y: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Go through all steps.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, H, W)
        steps : int
            How many frames after the input to give.
        y : Tensor of shape (B, steps, C', H, W), optional
            Targets, for `mask`.
        mask : Tensor of bool, shape (B, n), optional
            Where the true frame is fed, in the last n steps: those before are fed with it.
            Otherwise the input frames are fed, and from then on the network's own.

        Returns
        -------
        frames : Tensor of shape (B, T + steps - 1, C', H, W)
        state : Any
            After the last step.

        Raises
        ------
        InputError
            If the input has other steps or channels, or another grid where weights belong to one.
        """
        self._check_input(x, steps)
        T, total = x.shape[1], x.shape[1] + steps - 1
        given = self.cut(x)  # (B, T, P, h, w)
        truth = None if y is None else self.cut(y)
        known, moved = T, None
        if mask is not None:
            known, moved = total - mask.shape[1], mask.to(x.device, torch.bool)
        # Frames that are known go in together, one time after the other.
        u = self.inlet(given[:, :known].transpose(0, 1).flatten(0, 1)).unflatten(0, (known, -1))
        ready = deque(u.unbind(0))  # and are let go of one by one
        del u
        state = self.begin(given[:, 0])
        outputs: list[Tensor] = []
        for t in range(total):
            if t < known:
                fed, now = given[:, t], ready.popleft()
            else:
                fed = self._own_frame(outputs[-1], given, t, x.shape[-2:])
                if moved is not None:
                    true = self._true_frame(given, truth, t)
                    chosen = moved[:, t - known, None, None, None] & ~true.isnan()
                    fed = torch.where(chosen, true, fed)
                now = self.inlet(fed)
            z, state = self.step(now, state)
            outputs.append(self.close(z, fed))
        return self.join(torch.stack(outputs, 1), x.shape[-2:]), state

    def _own_frame(self, frame: Tensor, given: Tensor, t: int, size: Sequence[int]) -> Tensor:
        """What is fed at step t of the last output: padded anew, with the channels it lacks."""
        if size[0] % self.stride or size[1] % self.stride:
            frame = self.cut(self.join(frame[:, None], size))[:, 0]
        return self._completed(frame, given, t)

    def _true_frame(self, given: Tensor, truth: Tensor | None, t: int) -> Tensor:
        """The true frame t, of the input or of the targets."""
        T = given.shape[1]
        if t < T:
            return given[:, t]
        if truth is None:
            raise InputError("a mask needs the targets that it chooses from")
        return self._completed(truth[:, t - T], given, t)

    def _completed(self, frame: Tensor, given: Tensor, t: int) -> Tensor:
        """A frame (B, P', h, w) with the channels that are not forecast, (B, P, h, w)."""
        if self.out_channels == self.channels:
            return frame
        T, places = given.shape[1], self.patch**2
        source = given[:, t if t < T else (t - T) % T]
        rest = source.unflatten(1, (places, self.channels))[:, :, self.out_channels :]
        own = frame.unflatten(1, (places, self.out_channels))
        return torch.cat([own, rest], dim=2).flatten(1, 2)

    def _check_input(self, x: Tensor, steps: int) -> None:
        if x.ndim != 5 or x.shape[1:3] != (self.input_steps, self.channels):
            raise InputError(
                f"expected input of shape (B, {self.input_steps}, {self.channels}, H, W), found "
                f"{tuple(x.shape)}"
            )
        if steps < 1:
            raise InputError(f"expected at least one step to forecast, found {steps}")
        if self.cells_grid is not None:
            wanted = tuple(self.settings["grid"])
            if tuple(x.shape[-2:]) != wanted:
                raise InputError(
                    f"weights of this {type(self).__name__} belong to a grid of {wanted[0]} x "
                    f"{wanted[1]}, found input of {x.shape[-2]} x {x.shape[-1]}: make it for that "
                    "grid and train it there"
                )

    def set_tendency_std(self, change: Tensor) -> None:
        """Set the unit of changes, from the root mean square change (T', C') up to each lead."""
        if self.predict_change:
            self.tendency_std.copy_(change[0].clamp_min(1e-6))  # a channel may never change

    def forecast_part(self, frame: Tensor) -> Tensor:
        """The channels of a frame (B, P, h, w) that are forecast, (B, P', h, w)."""
        if self.out_channels == self.channels:
            return frame
        places = frame.unflatten(1, (self.patch**2, self.channels))
        return places[:, :, : self.out_channels].flatten(1, 2)

    def per_place(self, values: Tensor) -> Tensor:
        """Values of the channels that are forecast (C',), for patches: (P', 1, 1)."""
        return values.repeat(self.patch**2)[:, None, None]

    # --- patches ----------------------------------------------------------------------------------

    def cut(self, x: Tensor) -> Tensor:
        """Pad to whole patches and cut: (B, n, C, H, W) -> (B, n, p^2 C, h, w)."""
        p, rows, columns = self.patch, -x.shape[-2] % self.stride, -x.shape[-1] % self.stride
        if rows or columns:
            flat, around = x.flatten(0, 1), "circular" if self.circular_longitude else "replicate"
            if columns:
                flat = F.pad(flat, (0, columns, 0, 0), mode=around)
            if rows:
                flat = F.pad(flat, (0, 0, 0, rows), mode="replicate")
            x = flat.unflatten(0, x.shape[:2])
        if p == 1:
            return x
        h, w = x.shape[-2] // p, x.shape[-1] // p
        x = x.unflatten(-1, (w, p)).unflatten(-3, (h, p))  # (B, n, C, h, row, w, col)
        return x.permute(0, 1, 4, 6, 2, 3, 5).flatten(2, 4)

    def join(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Join patches and crop: (B, n, p^2 C, h, w) -> (B, n, C, H, W)."""
        p, (H, W) = self.patch, size
        if p > 1:
            x = x.unflatten(2, (p, p, -1))  # (B, n, row, col, C, h, w)
            x = x.permute(0, 1, 4, 5, 2, 6, 3).flatten(-2).flatten(-3, -2)
        return x[..., :H, :W]
