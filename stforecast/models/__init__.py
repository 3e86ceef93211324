"""Networks (B, T, C, H, W) -> (B, T', C', H, W). They know nothing of xarray."""

from .cost import Summary, summary
from .inference import for_inference
from .openstl import load_openstl
from .simvp import SimVPv2

__all__ = ["SimVPv2", "Summary", "for_inference", "load_openstl", "summary"]
