"""Model inversion attacks, one file each, and the generative priors that they search."""
