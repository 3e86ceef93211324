from .bundle import default_bundle as default_bundle
from .bundle import read_bundle as read_bundle
from .core import ForecastModel as ForecastModel
from .earth2studio import Prognostic as Prognostic
from .forecaster import Forecaster as Forecaster
from .forecaster import load as load
from .predict import predict as predict
from .writing import write_forecast as write_forecast

__all__: list[str]
