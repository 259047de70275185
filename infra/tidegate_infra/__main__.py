"""`python -m tidegate_infra`: the same commands as `tidegate-infra`."""

from tidegate_infra.cli import main

main()
