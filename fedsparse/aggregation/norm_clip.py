"""The mean of updates that are cut to one length.

Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019 (arXiv 1911.07963), section 4,
where the length is a setting. Here it is the median of the cohort's lengths, so that it follows the training.
"""

import numpy as np
from torch import Tensor

from fedsparse.aggregation.kept import Kept, middle


class NormClip(Kept):
    """The mean, weighted by samples, of updates that are at most as long as the median one.

    A coordinate that a client did not send has no length, and adds nothing to the mean, as in ``Mean``.
    """

    def result(self) -> Tensor:
        """See ``Aggregator``."""
        norms = self.norms()
        return self.mean(np.minimum(1.0, middle(norms) / np.maximum(norms, 1e-30)).clip(1e-300))
