"""The linear problem behind expert tokens: regularised logistic regression in a whitened space.

Features have directions that vary for reasons of form, not of subject. Each is standardised, the
covariance within groups is shrunk strongly toward the identity (SHRINKAGE; as in shrinkage LDA,
Ledoit & Wolf 2004, but a fixed amount, chosen by cross-validation), and the regression is solved
in the space where that covariance is the identity. Classes weigh the same, however many states
they have. There are more features than examples: the L2 penalty does the rest.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular  # type: ignore[import-untyped]
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import expit, log_softmax  # type: ignore[import-untyped]

from router.head import Floats

SHRINKAGE = 0.8
STRENGTH = 0.01
"""Inverse of the L2 penalty (scikit-learn's C), on features of mean square 1."""

FIT_THREADS = max(1, (os.cpu_count() or 1) // 2)
"""Threads of linear algebra that wait for one another lose much to workers on the same cores."""
TOLERANCE = 1e-3
"""Of the gradient of the mean loss."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Space:
    """A linear map of features `[n, d]` to a space in which groups are round."""

    mean: Floats
    scale: Floats
    factor: Floats
    """Lower Cholesky factor `[d, d]` of the shrunk covariance of standardised features."""
    size: float

    @classmethod
    def fit(cls, features: Floats, groups: Labels) -> tuple[Space, Floats]:
        """From features `[n, d]` and the group `[n]` of each, numbered from 0; and these features
        in it."""
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        standard = (features - mean) / scale
        inside = standard - _means(standard, groups)[groups]
        spare = max(1, len(features) - int(groups.max()) - 1)
        covariance = (1 - SHRINKAGE) * (inside.T @ inside) / spare
        count = len(mean)
        target = float((inside**2).sum()) / spare / count or 1.0
        covariance[np.diag_indices(count)] += SHRINKAGE * target
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        mapped = cls(mean, scale, factor, 1.0).map(features)
        size = float(np.sqrt((mapped**2).mean())) or 1.0
        return cls(mean, scale, factor, size), mapped / np.float32(size)

    def map(self, features: Floats) -> Floats:
        """`[n, d]` in this space."""
        standard = ((features - self.mean) / self.scale).T
        mapped = solve_triangular(self.factor, standard, lower=True, check_finite=False)
        result: Floats = (mapped.T / self.size).astype(np.float32)
        return result

    def rows(self, weights: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """Weights `[k, d]` and biases `[k]` of this space as ones for raw features."""
        raw = solve_triangular(self.factor, weights.T, lower=True, trans="T", check_finite=False)
        rows = (raw.T / (self.scale * self.size)).astype(np.float32)
        return rows, (bias - rows @ self.mean).astype(np.float32)


def between(features: Floats, labels: Labels, weight: Floats | None = None) -> Floats:
    """An orthonormal basis `[classes - 1, d]` of the differences between classes' means."""
    weight = np.ones(len(labels), np.float32) if weight is None else weight
    sums = np.zeros((int(labels.max()) + 1, features.shape[1]))
    np.add.at(sums, labels, features * weight[:, None])
    means = sums / np.bincount(labels, weight)[:, None]
    basis: Floats = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2]
    return basis[: len(means) - 1].astype(np.float32)


def regress(
    features: Floats, labels: Labels, weight: Floats, worth: Floats | None = None
) -> tuple[Floats, Floats]:
    """Multinomial regression: log-odds of class 1, 2, … against class 0.

    `features` `[n, d]` of a Space; `labels` `[n]`, every class present; `weight` `[n]`, within its
    class; `worth` `[classes]`, how much a class weighs (None: all the same). Returns weights
    `[classes - 1, d]` and biases.
    """
    totals = np.bincount(labels, weight)
    worths = np.ones(len(totals)) if worth is None else worth
    share = weight * (worths / (worths.sum() * totals))[labels]
    penalty = 1 / (STRENGTH * float(weight.sum()))
    right = np.arange(len(labels)), labels

    def loss(parameters: Floats) -> tuple[float, Floats]:
        rows = parameters.reshape(len(totals), -1)
        weights, bias = rows[:, :-1], rows[:, -1]
        likelihood = log_softmax(features @ weights.T.astype(np.float32) + bias, axis=1)
        pull = np.exp(likelihood)
        pull[right] -= 1
        pull *= share[:, None]
        slope = np.empty_like(rows)
        slope[:, :-1] = pull.T.astype(np.float32) @ features + penalty * weights
        slope[:, -1] = pull.sum(axis=0)
        cost = 0.5 * penalty * (weights**2).sum() - share @ likelihood[right]
        return float(cost), slope.ravel()

    start = np.zeros(len(totals) * (features.shape[1] + 1))
    options = {"gtol": TOLERANCE, "maxiter": 200}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    rows = (found.reshape(len(totals), -1) - found.reshape(len(totals), -1)[0]).astype(np.float32)
    return rows[1:, :-1], rows[1:, -1]


def regress_against(
    features: Floats, labels: Labels, weight: Floats, rivals: Floats
) -> tuple[Floats, float]:
    """Logistic regression of one class beside others whose scores are given: weights `[d]`, bias.

    P(1) = e^s / (e^s + e^rivals), with s = features·weights + bias. `features` `[n, d]` of a
    Space; `labels` `[n]`, 0 or 1; `weight` `[n]`; `rivals` `[n]`, the others' log Σ e^score.
    """
    sign, weight = 2.0 * labels - 1, STRENGTH * weight * (len(weight) / weight.sum())

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scores = features @ parameters[:-1].astype(np.float32) + parameters[-1]
        margins = sign * (scores - rivals)
        pull = -weight * sign * expit(-margins)
        slope = np.append(pull.astype(np.float32) @ features + parameters[:-1], pull.sum())
        cost = weight @ np.logaddexp(0, -margins) + 0.5 * parameters[:-1] @ parameters[:-1]
        return float(cost), slope

    start = np.zeros(features.shape[1] + 1)
    options = {"ftol": 1e-6, "gtol": 1e-4, "maxiter": 200}  # as exact as single precision allows
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return found[:-1].astype(np.float32), float(found[-1])


def _means(features: Floats, groups: Labels) -> Floats:
    """Mean of each group `[groups, d]`."""
    return np.stack([features[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
