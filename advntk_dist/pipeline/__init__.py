"""The whole job: from a configuration to results and a report, stage by resumable stage."""
