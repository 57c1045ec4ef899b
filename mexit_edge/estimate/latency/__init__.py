"""Cycles: the terms of the model, their rates, and where the rates come from."""
