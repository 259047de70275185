"""The plugin of the package `tidegate-aws`; Pulumi runs the folder that this file is in."""

from pulumi.provider.experimental import component_provider_host

from tidegate.version import VERSION
from tidegate_infra.host.package import COMPONENTS, NAME

if __name__ == "__main__":
    component_provider_host(COMPONENTS, NAME, version=VERSION)
