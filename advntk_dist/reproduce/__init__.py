"""The experiments of Fu & Wang (2024): their settings by name, and the grid of them run over seeds into one table."""
