"""Questions that need something to be run."""
