"""DCD: which surrogate, which recipe for which row, and the recipe applied to pixels."""
