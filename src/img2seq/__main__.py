"""`python -m img2seq`."""

from img2seq.cli.main import main

main()
