"""Questions about a recorded run, its curves, and two of them."""
