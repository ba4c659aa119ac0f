"""Disk and git: evidence that is only appended, baselines, provenance, incidents as files."""
