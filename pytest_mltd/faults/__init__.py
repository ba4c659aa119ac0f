"""Room for faults that can be planted on purpose. Empty so far."""
