"""Training: one LightningModule for every method, and what a run writes while it trains.

`module` joins a network, a relaxation, a loss and a gradient estimator. `schedules` holds everything that changes over
the epochs, `checkpoints` and `metrics` what is written, `progress` what is shown. `survival` decides when it is saved
and puts a resumed run where it was; `stopping` turns signals into an end between two generations.
"""

from certtrain.training.module import CertifiedTraining
from certtrain.training.schedules import Ramp

__all__ = ["CertifiedTraining", "Ramp"]
