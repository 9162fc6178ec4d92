"""How bytes move: inputs to where a job runs, outputs home, all or nothing."""
