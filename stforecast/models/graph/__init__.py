"""Graph networks on the points of a latitude-longitude grid, one paper a file."""

from .base import GraphNetwork, Recurrent, teacher_probability
from .mesh import FixedSum, Mesh, chebyshev, great_circle, neighbour_sum, orientation_weights
from .public import load_public

__all__ = [
    "FixedSum",
    "GraphNetwork",
    "Mesh",
    "Recurrent",
    "chebyshev",
    "great_circle",
    "load_public",
    "neighbour_sum",
    "orientation_weights",
    "teacher_probability",
]
