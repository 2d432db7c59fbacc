"""Imports of other people's packages, without their warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Run the block without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
