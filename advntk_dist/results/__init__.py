"""What a run has found, as JSON: one definition that writers and readers share."""
