"""The public names, for type checkers and editors; the same as in `__init__.py`."""

from roundoff.bounds.bound import Bound as Bound
from roundoff.bounds.bound import Statement as Statement
from roundoff.bounds.theorems import depth_weighted as depth_weighted
from roundoff.bounds.theorems import dot2 as dot2
from roundoff.bounds.theorems import gamma as gamma
from roundoff.bounds.theorems import hallman_ipsen as hallman_ipsen
from roundoff.bounds.theorems import higham_mary as higham_mary
from roundoff.bounds.theorems import higham_mary_lambda as higham_mary_lambda
from roundoff.bounds.theorems import jeannerod_rump as jeannerod_rump
from roundoff.bounds.theorems import kahan as kahan
from roundoff.bounds.theorems import lange_rump as lange_rump
from roundoff.bounds.theorems import neumaier as neumaier
from roundoff.bounds.theorems import stochastic_rounding as stochastic_rounding
from roundoff.bounds.theorems import sum2 as sum2
from roundoff.gradients.layer_bounds import conv_gradients as conv_gradients
from roundoff.gradients.layer_bounds import linear_gradients as linear_gradients
from roundoff.gradients.layer_bounds import matmul_gradients as matmul_gradients
from roundoff.gradients.sum_bounds import dot as dot
from roundoff.gradients.sum_bounds import matmul as matmul
from roundoff.gradients.sum_bounds import sum as sum
