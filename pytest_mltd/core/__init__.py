"""The vocabulary: values that flow between the rooms. Standard library and numpy only."""
