"""Shared by all tests: no GPU, warnings of our own are errors."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
