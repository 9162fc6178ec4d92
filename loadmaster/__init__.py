"""Loadmaster: plan, stage, run and harvest survey data processing."""
