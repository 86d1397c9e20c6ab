"""Distance of batch statistics from those that a batch norm has kept, the loss of SRe2L, for several batches at once."""

import torch
from torch import Tensor


def statistics_loss(x: Tensor, mean: Tensor, var: Tensor, groups: int = 1, r_var: float = 1.0) -> Tensor:
    """sum_g ||mu_g - mean||_2 + r_var ||sigma2_g - var||_2, a scalar; norms over channels, unsquared; x: (N, C, *spatial).

    Image n is of group n % groups; mu_g, sigma2_g: mean and biased variance of each channel over the images of group g and all
    places. By the law of total variance sigma2 is the mean of the images' variances plus the variance of their means, so each
    image is reduced where it lies. (torch.var_mean is not vectorised on a CPU: 34 ms against 5 for 100 x 64 x 32 x 32 numbers.)
    The gradient at exact equality is zero.
    """
    x = x.reshape(*x.shape[:2], -1)
    x = x.float() if x.dtype.itemsize < 4 else x
    means = x.mean(2)
    variances = (x - means[..., None]).square().mean(2)
    variances, means = variances.unflatten(0, (-1, groups)), means.unflatten(0, (-1, groups))
    spread, centre = torch.var_mean(means, 0, correction=0)
    away, wide = (torch.linalg.vector_norm(gap, dim=1).sum() for gap in (centre - mean, variances.mean(0) + spread - var))
    return away + r_var * wide
