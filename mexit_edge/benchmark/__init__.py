"""Sweeps over data x backbone x regime x seed: resumable, on joblib back ends, with one CSV and a page."""
