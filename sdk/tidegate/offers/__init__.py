"""The hardware catalogue: what a machine holds, what it costs in a place, and who says so.

Both planes may read it; nothing here asks anybody. `bundled_offers()` came with this version.
"""

from tidegate.offers.bundled import bundled_hardware, bundled_offers
from tidegate.offers.offer import Covers, Gpu, Hardware, MigSlice, Offer, is_gpu

__all__ = [
    "Covers",
    "Gpu",
    "Hardware",
    "MigSlice",
    "Offer",
    "bundled_hardware",
    "bundled_offers",
    "is_gpu",
]
