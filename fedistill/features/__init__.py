"""Public feature maps, fitted on the proxy set alone."""

from fedistill.features.expansion import Expansion
from fedistill.features.proxy_basis import ProxyBasis, proxy_basis
from fedistill.features.public_map import FEATURE_STEP, PublicMap, fit_public_map
from fedistill.features.teacher_columns import TeacherColumns

__all__ = [
    "FEATURE_STEP",
    "Expansion",
    "ProxyBasis",
    "PublicMap",
    "TeacherColumns",
    "fit_public_map",
    "proxy_basis",
]
