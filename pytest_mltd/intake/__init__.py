"""Room for other tools' logs as traces. Empty so far."""
