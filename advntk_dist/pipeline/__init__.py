"""The whole job: from a configuration to results and a report, stage by resumable stage."""

from advntk_dist.pipeline.run import RunOutcome, run

__all__ = ["RunOutcome", "run"]
