"""`python -m llmbuild`."""

from llmbuild.cli.main import run

if __name__ == "__main__":
    run()
