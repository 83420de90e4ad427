"""Distances between two sets of images: FID, and KID where there are too few for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def fid(real: Floats, fake: Floats) -> float | None:
    """Return the Fréchet distance of two normal distributions fitted to features (n, d), (m, d).

    |mu_r - mu_f|^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)); Heusel et al., NeurIPS 2017, equation 6.
    The trace of the root is taken from the eigenvalues of C_r^(1/2) C_f C_r^(1/2), which is
    symmetric: no complex numbers, no offset on the diagonal.

    Returns:
        None where a set has at most d samples: its covariance is then singular, and the distance
        says more about the number of samples than about the images.
    """
    if min(len(real), len(fake)) <= real.shape[1]:
        return None
    shift = np.square(real.mean(axis=0) - fake.mean(axis=0)).sum()
    c_real, c_fake = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    c_real, c_fake = np.atleast_2d(c_real), np.atleast_2d(c_fake)
    values, vectors = np.linalg.eigh(c_real)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    inner = np.linalg.eigvalsh(root @ c_fake @ root)
    both = np.sqrt(np.maximum(inner, 0.0)).sum()
    return float(shift + np.trace(c_real) + np.trace(c_fake) - 2 * both)


def kid(real: Floats, fake: Floats) -> float | None:
    """Return the unbiased squared maximum mean discrepancy of features (n, d) and (m, d).

    With the kernel k(x, y) = (x.y / d + 1)^3, over all samples and without subsets;
    Bińkowski et al., ICLR 2018, section 4, estimator of Gretton et al., JMLR 2012, equation 3:
    sum_{i != j} k(r_i, r_j) / n(n-1) + sum_{i != j} k(f_i, f_j) / m(m-1) - 2 mean_ij k(r_i, f_j).
    Its expectation does not depend on n and m; it may be below zero.

    Returns:
        None where a set has fewer than two samples.
    """
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        return None
    rr, ff, rf = _kernel(real, real), _kernel(fake, fake), _kernel(real, fake)
    within_real = (rr.sum() - np.trace(rr)) / (n * (n - 1))
    within_fake = (ff.sum() - np.trace(ff)) / (m * (m - 1))
    return float(within_real + within_fake - 2 * rf.mean())


def _kernel(a: Floats, b: Floats) -> Floats:
    found: Floats = (a @ b.T / a.shape[1] + 1) ** 3
    return found
