"""Turn a broken training run into a pytest test that fails for the right reason, and keep it as the monitor."""

__version__ = "0.1.0"
