"""Questions about tables and splits, on any engine."""
