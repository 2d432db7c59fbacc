"""Checks of the numbers that functions are given."""

from __future__ import annotations


def check_count(name: str, value: object, least: int) -> None:
    """ValueError for what is no integer of at least `least`."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


def check_number(name: str, value: object, low: float, high: float, allowed: str) -> None:
    """TypeError or ValueError for what is no number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected {allowed}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {allowed}, got {value!r}")
