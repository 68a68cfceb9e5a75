"""What a run will take, before anything of it runs: counts from the configuration, seconds from a short calibration."""
