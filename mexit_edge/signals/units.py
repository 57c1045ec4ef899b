"""Units of samples: what quantity each measures, and what it is of another unit of that quantity."""

from __future__ import annotations

from math import pi

# Quantity -> unit -> how much of the quantity's first unit it is.
# Standard gravity is 9.80665 m/s^2 (CGPM 1901).
QUANTITIES: dict[str, dict[str, float]] = {
    "acceleration": {"m/s^2": 1.0, "g": 9.80665, "mg": 9.80665e-3},
    "angular rate": {"rad/s": 1.0, "deg/s": pi / 180, "mdeg/s": pi / 180e3},
    "voltage": {"V": 1.0, "mV": 1e-3, "uV": 1e-6},
    "magnetic flux density": {"T": 1.0, "mT": 1e-3, "uT": 1e-6, "G": 1e-4, "mG": 1e-7},
}
# Other spellings of the units above.
_SPELLINGS = {
    "m/s2": "m/s^2", "m/s²": "m/s^2", "m/s**2": "m/s^2", "dps": "deg/s", "°/s": "deg/s", "mdps": "mdeg/s",
    "µV": "uV", "μV": "uV", "µT": "uT", "μT": "uT", "gauss": "G",
}  # fmt: skip


def spelled(unit: str) -> str:
    """Return a unit in the spelling of `QUANTITIES`; one that is not known as it is."""
    return _SPELLINGS.get(unit, unit)


def quantity_of(unit: str) -> str | None:
    """Return what a unit measures, a key of `QUANTITIES`; None if it is not known."""
    return next((quantity for quantity, units in QUANTITIES.items() if spelled(unit) in units), None)
