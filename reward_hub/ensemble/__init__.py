"""Several reward models as one: `EnsembleRM`, and the same arithmetic over recorded scores."""

from reward_hub.ensemble.ensemble_rm import EnsembleRM as EnsembleRM
