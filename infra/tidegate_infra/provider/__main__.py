"""`python -m tidegate_infra.provider ENGINE`: the plugin, as `pulumi-resource-tidegate` runs it."""

from tidegate_infra.provider.serve import main

main()
