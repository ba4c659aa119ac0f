"""Every question that is asked of something already there. Pure: no clock, no file, no hidden random state."""
