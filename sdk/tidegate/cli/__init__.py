"""The command line `tidegate`."""


def main() -> None:
    """The entry point; loads the commands only when it is called."""
    from tidegate.cli.app import app

    app()
