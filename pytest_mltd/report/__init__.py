"""An incident as text: Markdown for people, plain data for programs."""
