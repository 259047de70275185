"""Why something sealed does not open. Part of the object store's tree: bodies come through it.

ObjectStoreError
├── StoreUnavailable
│   └── KeysUnavailable    the key service does not answer, or refuses; try again
│       └── KeyMissing     no key that this process holds has the id that is asked for
└── ObjectDamaged          not what was sealed under this name
    └── NotSealed          it is plain where everything must be sealed
"""

from __future__ import annotations

from tidegate_controlplane.objects.base import ObjectStoreError, StoreUnavailable


class KeysUnavailable(StoreUnavailable):
    """Keys cannot be asked for now; what is sealed is whole."""


class KeyMissing(KeysUnavailable):
    """The key that sealed it is not among those given; adding it is enough."""


class ObjectDamaged(ObjectStoreError):
    """It was changed, cut, moved to another name, or sealed for another project."""


class NotSealed(ObjectDamaged):
    """It is plain, and the settings say that nothing plain is believed."""
