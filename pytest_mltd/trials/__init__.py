"""Drivers that run one test again with one thing changed; the runner is passed in."""
