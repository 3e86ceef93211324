"""Graph networks on the points of a latitude-longitude grid, one paper a file."""

from .agcrn import AGCRN
from .astgcn import ASTGCN
from .base import GraphNetwork
from .clcrn import CLCRN, ConditionalKernel
from .clcstn import CLCSTN
from .dcrnn import DCRNN
from .gcgru import GCGRU
from .mesh import Mesh, great_circle, orientation_weights
from .mstgcn import MSTGCN
from .public import load_public
from .sequence import Recurrent, Spread, SpreadCell, teacher_probability
from .stgcn import STGCN
from .sums import FixedSum, chebyshev
from .tgcn import TGCN

__all__ = [
    "AGCRN",
    "ASTGCN",
    "CLCRN",
    "CLCSTN",
    "DCRNN",
    "GCGRU",
    "MSTGCN",
    "STGCN",
    "TGCN",
    "ConditionalKernel",
    "FixedSum",
    "GraphNetwork",
    "Mesh",
    "Recurrent",
    "Spread",
    "SpreadCell",
    "chebyshev",
    "great_circle",
    "load_public",
    "orientation_weights",
    "teacher_probability",
]
