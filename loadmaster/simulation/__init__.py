"""A simulated survey with known truth: a sky, a camera with faults, its raw frames as FITS."""

from .survey import SimulatedSurvey, simulate_survey

__all__ = ["SimulatedSurvey", "simulate_survey"]
