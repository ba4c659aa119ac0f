"""The recorder, seeds and slices: the only room that hooks into torch."""
