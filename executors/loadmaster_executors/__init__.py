"""Where work runs: the executor protocol, the job runner, the run's journal."""
