from . import datasets as datasets
from . import evaluation as evaluation
from . import models as models
from . import plots as plots
from . import testing as testing
from .baselines import Climatology as Climatology
from .baselines import Persistence as Persistence
from .datasets import open_sample as open_sample
from .evaluation import evaluate as evaluate
from .forecasting import Forecaster as Forecaster
from .forecasting import load as load
from .forecasting import predict as predict
from .models import SimVPv2 as SimVPv2
from .plots import plot_map as plot_map
from .task import Task as Task
from .training import TrainConfig as TrainConfig
from .training import fit as fit

__version__: str
__all__: list[str]
