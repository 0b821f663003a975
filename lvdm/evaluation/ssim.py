"""Structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004, IEEE Transactions on Image Processing 13(4))."""

import numpy as np

RADIUS, SIGMA = 5, 1.5  # of the 11x11 Gaussian
RANGE = 255.0
C1, C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2


def ssim(luma: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean SSIM index of two pictures (H, W) in 0-255, of at least 11 pixels per side; 1 if they are equal.

    As published: Gaussian weights with a standard deviation of 1.5 in 11x11 windows inside the picture, K1 = 0.01,
    K2 = 0.03, population moments, one scale.
    """
    x, y = luma.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _weighted(x), _weighted(y)
    variances = _weighted(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = _weighted(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return float((luminance * (2 * covariance + C2) / (variances + C2)).mean())


def _weighted(values: np.ndarray) -> np.ndarray:
    """Return the weighted mean of every whole window: (H, W) -> (H - 10, W - 10)."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    rows, columns = values.shape[0] - 2 * RADIUS, values.shape[1] - 2 * RADIUS
    down = sum(weight * values[at : at + rows] for at, weight in enumerate(weights))
    return sum(weight * down[:, at : at + columns] for at, weight in enumerate(weights))
